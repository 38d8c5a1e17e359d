//! Calls of Admin, made up.

use super::{Generator, PERIODS, is_counter, is_rate};
use crate::auditor::Auditor;

const PATTERNS: &[&str] = &[
    "tenants/*",
    "tenants/*/projects/*",
    "tenants/t0/projects/*",
    "tenants/*/users/*",
    "users/*",
    "tenants/*/projects/*/users/*",
    "tenants/t0/projects/*/users/x0",
];

impl Generator {
    pub(super) fn admin_call(&mut self, auditor: &Auditor) -> String {
        match self.random.u8(..100) {
            0..=61 => self.set_quota(auditor),
            62..=74 => self.delete_quota(),
            75..=80 => {
                let (place, labels) = (self.subject(), self.labels());
                let how = self.pick(&["", "", " new", " known", " etag=none"]);
                format!("subject {place}{labels}{how}")
            }
            // What is deleted counts until it is swept: with few subjects that shows.
            81..=85 if self.bounds.subjects_max > 100 => {
                let place = match self.random.u8(..12) {
                    0 => "system",
                    _ => self.subject(),
                };
                format!(
                    "unsubject {place}{}",
                    self.pick(&["", "", "", " etag=none"])
                )
            }
            81..=88 => {
                let resource =
                    self.pick(&["lab.space", "lab.events", "lab.unused", "storage.volumes"]);
                let kind = if is_counter(resource) {
                    "counter"
                } else {
                    "allocation"
                };
                let how = self.pick(&["", " deny", " known", " new", " etag=none"]);
                format!("resource {resource} kind={kind}{how}")
            }
            89..=90 => {
                let resource = self.pick(&["lab.unused", "lab.unused", "lab.space", "compute.cpu"]);
                format!("unresource {resource}")
            }
            91..=94 => {
                let (place, resource) = (
                    self.subject(),
                    self.pick(&["api.calls", "cost", "api.requests"]),
                );
                let id = self.pick(&["", "", " id=hour", " id=60s"]);
                format!("reset {place} {resource}{id}")
            }
            _ => {
                let (place, also) = self.also_of_any();
                let resource = self.pick(&["api.calls", "cost", "lab.events", "compute.cpu"]);
                let have = auditor.account(&place, resource).0.min(1 << 50);
                let amount = match self.random.u8(..4) {
                    0 => -have - 1,
                    1 => -have.max(1),
                    2 => self.random.i64(1..20),
                    _ => -self.random.i64(1..20),
                };
                let also = if also.is_empty() {
                    also
                } else {
                    format!(" also={also}")
                };
                let past = if self.chance(40) { " past" } else { "" };
                format!("correct {place} {resource} {amount}{also}{past}")
            }
        }
    }

    fn place_of_quota(&mut self, resource: &str) -> &'static str {
        match self.random.u8(..10) {
            0..=1 => "system",
            // Of RATE none covers another: what is owed when a default comes to be covered is not defined.
            2..=4 if is_rate(resource) => {
                self.pick(&["tenants/*", "tenants/*/projects/*", "users/*"])
            }
            2..=4 => self.pick(PATTERNS),
            _ => self.subject(),
        }
    }

    fn set_quota(&mut self, auditor: &Auditor) -> String {
        let resource = self.resource();
        let place = self.place_of_quota(resource);
        let limit = match self.random.u8(..12) {
            0 => "unlimited".to_owned(),
            1 => "0".to_owned(),
            2..=3 => {
                let (used, held) = auditor.account(place, resource);
                let taken = used.saturating_add(held);
                (taken + self.random.i64(-2..4))
                    .clamp(0, (1 << 53) - 1)
                    .to_string()
            }
            _ => self.random.i64(1..=self.temper.limit).to_string(),
        };
        let mut text = format!("quota {place} {resource} {limit}");
        let mut enforce = self.pick(&["deny", "deny", "deny", "deny", "warn", "shadow"]);
        if is_counter(resource) {
            let period = self.pick(PERIODS);
            match self.random.u8(..4) {
                // One id whose period changes.
                0 => text.push_str(&format!(" period={period} id=.main")),
                _ => text.push_str(&format!(" period={period}")),
            }
        } else if is_rate(resource) {
            // An id keeps its interval: with another, what a default owes is not defined.
            text.push_str(self.pick(&[" rate=60s", " rate=60s", " rate=1s id=.fast"]));
            if self.chance(50) {
                text.push_str(&format!(
                    " bucket={}",
                    self.random.i64(1..=self.temper.limit.min(1 << 30))
                ));
            }
            if self.chance(40) {
                enforce = "throttle";
                text.push_str(&format!(" delay={}", self.pick(&["10s", "500ms", "90s"])));
            }
        } else if self.chance(15) {
            text.push_str(" id=.second");
        }
        if enforce != "deny" {
            text.push_str(&format!(" enforce={enforce}"));
        }
        if self.chance(15) {
            text.push_str(self.pick(&[" state=disabled", " state=suspended"]));
        }
        if !is_rate(resource) && self.chance(15) {
            text.push_str(self.pick(&[
                " from=30s",
                " until=30s",
                " until=2h",
                " from=10s until=20m",
            ]));
        }
        if self.chance(12) {
            text.push_str(&format!(" max={}", self.random.i64(1..=self.temper.limit)));
        }
        if self.chance(20) {
            text.push_str(self.pick(&[" share=50", " share=100", " share=1"]));
        }
        if self.chance(70) {
            text.push_str(" force");
        }
        text.push_str(self.pick(&["", "", "", "", "", " new", " known", " etag=none"]));
        text
    }

    fn delete_quota(&mut self) -> String {
        let resource = self.resource();
        let place = match is_rate(resource) {
            true => self.subject(),
            false => self.place_of_quota(resource),
        };
        let id = match (is_counter(resource), self.random.u8(..4)) {
            (true, 0) => " id=.hour",
            (true, 1) => " id=.main",
            (false, 0) => " id=.second",
            _ => "",
        };
        let force = if self.chance(60) { " force" } else { "" };
        format!("unquota {place} {resource}{id}{force}")
    }
}
