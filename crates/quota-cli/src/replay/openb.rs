//! The pod list of the Alibaba cluster-trace-gpu-v2023: comma-separated values with a header.

use std::collections::HashMap;

use super::log::{Job, Log};

const MIB: i64 = 1 << 20;

pub(super) fn parse(text: &str) -> Result<Log, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?;
    let columns: HashMap<String, usize> = header
        .iter()
        .enumerate()
        .map(|(at, name)| (name.to_owned(), at))
        .collect();
    let mut log = Log::default();
    for (at, row) in reader.records().enumerate() {
        let row = row.map_err(|error| error.to_string())?;
        let text = |name: &str| -> Result<&str, String> {
            columns
                .get(name)
                .and_then(|column| row.get(*column))
                .ok_or_else(|| format!("row {}: no column {name}", at + 1))
        };
        let number = |name: &str| -> Result<i64, String> {
            match text(name)?.trim() {
                "" => Ok(0),
                digits => match digits.parse::<f64>() {
                    Ok(number) => Ok(number as i64),
                    Err(_) => Err(format!("row {}: {name}: {digits:?}", at + 1)),
                },
            }
        };
        let wide = || format!("row {}: its numbers are too large", at + 1);
        let gpus = number("num_gpu")?;
        let gpu = if gpus == 1 {
            number("gpu_milli")?
        } else {
            gpus.checked_mul(1000).ok_or_else(wide)?
        };
        let spec = match text("gpu_spec")?.replace('|', "-") {
            empty if empty.is_empty() => "any".to_owned(),
            spec => spec,
        };
        let memory = number("memory_mib")?.checked_mul(MIB).ok_or_else(wide)?;
        let mut amounts = vec![
            ("compute.cpu", number("cpu_milli")?),
            ("compute.memory", memory),
            ("compute.gpu", gpu),
            ("compute.instances", 1),
        ];
        amounts.retain(|(_, amount)| *amount > 0);
        let start = number("creation_time")?;
        log.jobs.push(Job {
            subject: format!("tenants/{}/projects/{spec}", text("qos")?),
            allocation: text("name")?.to_owned(),
            amounts,
            start,
            end: number("deletion_time")?.max(start.checked_add(1).ok_or_else(wide)?),
        });
    }
    match log.jobs.is_empty() {
        true => Err("no pods; is this an openb pod list?".into()),
        false => Ok(log),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::log::fuzz;

    #[test]
    fn zeros_are_left_out_and_parts_of_a_gpu_count() {
        let text = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n\
            p0,1000,2,1,460,V100M16|V100M32,LS,Running,10,10,11\n\
            p1,500,1,0,0,,BE,Running,0,99,\n";
        let log = parse(text).unwrap();
        assert_eq!(log.jobs[0].subject, "tenants/LS/projects/V100M16-V100M32");
        assert_eq!(log.jobs[0].amounts[2], ("compute.gpu", 460));
        assert_eq!(log.jobs[0].end, 11);
        assert_eq!(log.jobs[1].subject, "tenants/BE/projects/any");
        assert_eq!(log.jobs[1].amounts.len(), 3);
    }

    #[test]
    fn any_text_is_a_log_or_an_error() {
        let pieces = [",", "\n", "\"", "|", "1e300", "nan", "-inf", "0.5"];
        fuzz("logs-openb", &pieces, parse);
    }
}
