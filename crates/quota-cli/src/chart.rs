//! Charts of blocks for a terminal: one column per stretch of time, eight steps to a row.

/// Rows of a chart.
const ROWS: usize = 8;
/// Most columns of a chart: with its labels it fits into eighty.
pub(crate) const COLUMNS_MAX: usize = 60;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws columns below `top`, with a line at `limit` where it is not above the top. `label` names a height.
pub(crate) fn draw(
    columns: &[i64],
    top: i64,
    limit: Option<i64>,
    labels: [&str; 2],
) -> Vec<String> {
    let eighths = ROWS * 8;
    let height = |value: i64| {
        let part = i128::from(value.max(0)) * eighths as i128;
        // What is there at all can be seen.
        let least = i128::from(value > 0);
        let height = (part / i128::from(top.max(1))).max(least);
        usize::try_from(height).unwrap_or(0).min(eighths)
    };
    let limit_row = limit
        .filter(|limit| *limit <= top)
        .map(|limit| height(limit).saturating_sub(1) / 8);
    let width = labels.iter().map(|label| label.chars().count()).max();
    let width = width.unwrap_or(0);
    let mut lines = Vec::new();
    for row in (0..ROWS).rev() {
        let cells = columns.iter().map(|value| {
            let filled = height(*value).saturating_sub(row * 8).min(8);
            match (filled, limit_row) {
                (0, Some(at)) if at == row => '╌',
                (filled, _) => BLOCKS[filled],
            }
        });
        let label = match row {
            row if row + 1 == ROWS => labels[0],
            row if row + 1 == ROWS / 2 => labels[1],
            _ => "",
        };
        let tick = if label.is_empty() { '│' } else { '┤' };
        lines.push(format!(
            "{label:>width$} {tick}{}",
            cells.collect::<String>()
        ));
    }
    lines.push(format!("{:>width$} └{}", "0", "─".repeat(columns.len())));
    lines
}

/// A line below a chart of so many columns: texts at its left and right end.
pub(crate) fn below(columns: usize, indent: usize, left: &str, right: &str) -> String {
    let room = columns.saturating_sub(left.chars().count());
    let room = room.max(right.chars().count() + 2);
    format!("{:indent$}{left}{right:>room$}", "")
}

/// Columns of at most [`COLUMNS_MAX`], each of the same number of values, and that number.
pub(crate) fn columns(values: &[i64], join: impl Fn(&[i64]) -> i64) -> (Vec<i64>, usize) {
    let each = values.len().div_ceil(COLUMNS_MAX).max(1);
    (values.chunks(each).map(join).collect(), each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_as_high_as_its_value() {
        let lines = draw(&[0, 1, 4, 8, 9], 8, None, ["8", "4"]);
        assert_eq!(lines.len(), ROWS + 1);
        let column = |at: usize| -> String {
            let cells = lines[..ROWS]
                .iter()
                .map(|line| line.chars().nth(3 + at).unwrap());
            cells.collect()
        };
        assert_eq!(column(0).trim(), "");
        assert_eq!(column(1), "       █");
        assert_eq!(column(2), "    ████");
        assert_eq!(column(3), "████████");
        assert_eq!(column(4), "████████");
        assert!(lines[0].starts_with("8 ┤") && lines[4].starts_with("4 ┤"));
        // The least that there is can be seen; nothing cannot.
        let low = draw(&[1, 0], i64::MAX, None, ["", ""]);
        assert!(low[ROWS - 1].ends_with("│▁ "), "{low:?}");
    }

    #[test]
    fn the_limit_is_a_line_where_nothing_hides_it() {
        let lines = draw(&[2, 8], 8, Some(4), ["8", "4"]);
        assert!(lines[4].ends_with("┤╌█"), "{lines:?}");
        let above = draw(&[2], 8, Some(9), ["8", "4"]);
        assert!(above.iter().all(|line| !line.contains('╌')));
    }

    #[test]
    fn columns_are_of_the_same_number_of_values() {
        let values: Vec<i64> = (0..168).collect();
        let (most, each) = columns(&values, |part| part.iter().copied().max().unwrap_or(0));
        assert_eq!((most.len(), each), (56, 3));
        assert_eq!(most[0], 2);
        assert_eq!(columns(&[], |_| 0).0.len(), 0);
    }
}
