//! The calendar, worked out from the days since 1 January 1970.

pub(super) const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 24 * 3600 * SECOND;

/// A definition of periods as scripts write it: `none`, `hour`, `3months`, `600s`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Period(pub(super) String);

impl Period {
    pub(super) fn is_none(&self) -> bool {
        self.0 == "none"
    }

    /// First instant of the period that contains `now`, and the first after it.
    pub(super) fn window(&self, now: i128) -> (i128, Option<i128>) {
        let digits: String = self.0.chars().take_while(char::is_ascii_digit).collect();
        let count: i128 = digits.parse().unwrap_or(1);
        let unit = self.0[digits.len()..].trim_end_matches('s');
        let steps = |length: i128, first: i128| {
            let start = first + (now - first).div_euclid(length * count) * length * count;
            (start, Some(start + length * count))
        };
        match unit {
            "none" => (i128::MIN, None),
            "hour" | "h" => steps(3600 * SECOND, 0),
            "day" | "d" => steps(DAY, 0),
            "week" => steps(7 * DAY, 4 * DAY),
            "month" => months(count, now),
            "year" => months(12 * count, now),
            "" => steps(SECOND, 0),
            "m" => steps(60 * SECOND, 0),
            other => panic!("no period is made of {other:?}"),
        }
    }
}

fn months(count: i128, now: i128) -> (i128, Option<i128>) {
    // One month after the other, from the first on: slow, and there is nothing in it to be wrong about.
    let (mut start, mut month) = (0, 0);
    loop {
        let days: i128 = (month..month + count).map(days_of).sum();
        let end = start + days * DAY;
        if now < end {
            return (start, Some(end));
        }
        start = end;
        month += count;
    }
}

/// Days of a month, counted from January 1970.
fn days_of(month: i128) -> i128 {
    let year = 1970 + month / 12;
    match month % 12 {
        1 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}
