//! Workload logs, read a second time and independently of the command line's replay, and run through the
//! auditor.

use quota_core::Bounds;

use crate::auditor::Auditor;
use crate::script::{Call, World};

/// One job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Whom it is charged to.
    pub subject: String,
    /// Its name.
    pub name: String,
    /// What it holds.
    pub amounts: Vec<(String, i64)>,
    /// When it begins.
    pub start: i64,
    /// When it ends.
    pub end: i64,
}

/// What a run comes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Jobs admitted.
    pub granted: usize,
    /// Jobs refused.
    pub refused: usize,
    /// Most in use at the root, per resource, sorted.
    pub peak: Vec<(String, i64)>,
}

/// Reads Standard Workload Format.
pub fn swf(text: &str) -> Vec<Job> {
    let mut jobs = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with(';') || line.trim().is_empty() {
            continue;
        }
        let mut f = vec![0_i64];
        for field in line.split_whitespace() {
            f.push(field.parse::<f64>().unwrap() as i64);
        }
        let processors = if f[5] > 0 { f[5] } else { f[8] };
        if processors > 0 {
            let start = f[2] + f[3].max(0);
            jobs.push(Job {
                subject: format!("tenants/g{}/users/u{}", f[13], f[12]),
                name: format!("job-{}", f[1]),
                amounts: vec![
                    ("compute.cpu".into(), processors * 1000),
                    ("compute.instances".into(), 1),
                ],
                start,
                end: start + f[4].max(1),
            });
        }
    }
    jobs
}

/// Reads an openb pod list.
pub fn openb(text: &str) -> Vec<Job> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut jobs = Vec::new();
    for line in lines {
        let row: Vec<&str> = line.split(',').collect();
        let cell = |name: &str| row[header.iter().position(|h| *h == name).unwrap()];
        let number = |name: &str| cell(name).parse::<f64>().unwrap_or(0.0) as i64;
        let spec = if cell("gpu_spec").is_empty() {
            "any"
        } else {
            cell("gpu_spec")
        };
        let gpus = number("num_gpu");
        let mut amounts = vec![
            ("compute.cpu".to_owned(), number("cpu_milli")),
            (
                "compute.memory".to_owned(),
                number("memory_mib") * 1_048_576,
            ),
            (
                "compute.gpu".to_owned(),
                if gpus == 1 {
                    number("gpu_milli")
                } else {
                    1000 * gpus
                },
            ),
            ("compute.instances".to_owned(), 1),
        ];
        amounts.retain(|(_, amount)| *amount != 0);
        let start = number("creation_time");
        jobs.push(Job {
            subject: format!(
                "tenants/{}/projects/{}",
                cell("qos"),
                spec.replace('|', "-")
            ),
            name: cell("name").into(),
            amounts,
            start,
            end: number("deletion_time").max(start + 1),
        });
    }
    jobs
}

/// Runs jobs through the auditor: by time, releases before consumes, then by position. `limits` are of
/// (place, resource, limit).
pub fn audit(jobs: &[Job], limits: &[(&str, &str, i64)]) -> Totals {
    let mut events = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        events.push((job.start, 1, at));
        events.push((job.end, 0, at));
    }
    events.sort_unstable();
    let mut bounds = Bounds::default();
    // Nothing is asked twice, so no answer has to be kept.
    bounds.memory.outcomes_max = 0;
    let mut auditor = Auditor::with_bounds(bounds);
    for (place, resource, limit) in limits {
        let set = call("quota", place, &[((*resource).to_owned(), *limit)]);
        assert!(auditor.call(&set).starts_with("set"));
    }
    let mut totals = Totals::default();
    let mut resources: Vec<String> = jobs
        .iter()
        .flat_map(|job| job.amounts.iter().map(|(key, _)| key.clone()))
        .collect();
    resources.sort();
    resources.dedup();
    totals.peak = resources.into_iter().map(|key| (key, 0)).collect();
    for (_, class, at) in events {
        let job = &jobs[at];
        let named = |mut call: Call| {
            call.options.insert("id".to_owned(), job.name.clone());
            call
        };
        if class == 0 {
            auditor.call(&named(call("release", &job.subject, &[])));
            continue;
        }
        let consume = named(call("consume", &job.subject, &job.amounts));
        match auditor.call(&consume).starts_with("granted") {
            true => totals.granted += 1,
            false => totals.refused += 1,
        }
        for (key, peak) in &mut totals.peak {
            *peak = (*peak).max(auditor.account("system", key).0);
        }
    }
    totals
}

fn call(verb: &str, place: &str, amounts: &[(String, i64)]) -> Call {
    let text = |(key, amount): &(String, i64)| (key.clone(), amount.to_string());
    Call {
        verb: verb.to_owned(),
        place: place.to_owned(),
        amounts: amounts.iter().map(text).collect(),
        ..Call::default()
    }
}
