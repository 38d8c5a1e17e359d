//! Standard Workload Format: 18 whitespace-separated numbers a line, `;` begins a comment.

use super::log::{Job, Log};

const FIELDS: usize = 18;

pub(super) fn parse(text: &str) -> Result<Log, String> {
    let mut log = Log::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        let fields: Vec<i64> = line
            .split_whitespace()
            .map(|field| field.parse::<f64>().map(|number| number as i64))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("line {}: {error}", at + 1))?;
        if fields.len() < FIELDS {
            return Err(format!(
                "line {}: {} fields, not {FIELDS}",
                at + 1,
                fields.len()
            ));
        }
        let field = |number: usize| fields[number - 1];
        let processors = if field(5) > 0 { field(5) } else { field(8) };
        if processors <= 0 {
            log.skipped += 1;
            continue;
        }
        let wide = || format!("line {}: its numbers are too large", at + 1);
        let millicores = processors.checked_mul(1000).ok_or_else(wide)?;
        let start = field(2).checked_add(field(3).max(0)).ok_or_else(wide)?;
        log.jobs.push(Job {
            subject: format!("tenants/g{}/users/u{}", field(13), field(12)),
            allocation: format!("job-{}", field(1)),
            amounts: vec![("compute.cpu", millicores), ("compute.instances", 1)],
            start,
            end: start.checked_add(field(4).max(1)).ok_or_else(wide)?,
        });
    }
    match log.jobs.is_empty() {
        true => Err("no jobs; is this Standard Workload Format?".into()),
        false => Ok(log),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::log::fuzz;

    #[test]
    fn fields_are_numbered_from_one() {
        let text = "; comment\n\
            7 100 5 0 -1 -1 -1 16 -1 -1 1 3 2 -1 -1 -1 -1 -1\n\
            8 100 -1 60 -1 -1 -1 -1 -1 -1 1 3 2 -1 -1 -1 -1 -1\n";
        let log = parse(text).unwrap();
        assert_eq!((log.jobs.len(), log.skipped), (1, 1));
        let job = &log.jobs[0];
        assert_eq!(job.subject, "tenants/g2/users/u3");
        assert_eq!(job.allocation, "job-7");
        assert_eq!(job.amounts[0], ("compute.cpu", 16_000));
        assert_eq!((job.start, job.end), (105, 106));
        assert!(parse("1 2 3").is_err());
        assert!(parse("; nothing").is_err());
    }

    #[test]
    fn any_text_is_a_log_or_an_error() {
        let pieces = [" ", "\n", ";", "-1", "1e300", "nan", "-inf", "0.5"];
        fuzz("logs-swf", &pieces, parse);
    }
}
