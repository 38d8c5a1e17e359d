//! Calls that charge and give back, made up.

use std::collections::VecDeque;

use super::{Generator, HOLDS_STAY, SUBJECTS, ends, is_rate, stays};
use crate::auditor::{Auditor, Known};
use crate::script::Call;

impl Generator {
    pub(super) fn charging_call(&mut self, auditor: &Auditor, now: i64) -> String {
        match self.random.u8(..100) {
            0..=29 => self.consume(auditor),
            30..=43 => self.release(auditor),
            44..=53 => self.resize(auditor),
            54..=64 => self.reserve(auditor, now),
            65..=74 => self.commit(auditor, now),
            75..=78 => {
                let hold = self.hold_name(auditor, now);
                format!(
                    "renew-hold {} id={} ttl={}",
                    hold.subject,
                    hold.id,
                    self.ttl()
                )
            }
            79..=82 => {
                let hold = self.hold_name(auditor, now);
                format!("cancel {} id={}", hold.subject, hold.id)
            }
            83..=86 => self.renew(auditor),
            87..=90 => self.release_matching(),
            _ => self.linked(auditor),
        }
    }

    /// Up to `most` resources with amounts around what fits.
    pub(super) fn asked(
        &mut self,
        auditor: &Auditor,
        verb: &str,
        place: &str,
        also: &str,
        most: usize,
    ) -> String {
        let count = match self.random.u8(..4) {
            0 => self.random.usize(1..=most),
            _ => 1,
        };
        let mut resources: Vec<&str> = (0..count).map(|_| self.resource()).collect();
        resources.sort_unstable();
        resources.dedup();
        let mut text = format!("{verb} {place}");
        for resource in resources {
            let amount = self.amount(auditor, place, also, resource);
            text.push_str(&format!(" {resource} {amount}"));
        }
        if !also.is_empty() {
            text.push_str(&format!(" also={also}"));
        }
        text
    }

    fn amount(&mut self, auditor: &Auditor, place: &str, also: &str, resource: &str) -> i64 {
        const MOST: i64 = (1 << 53) - 1;
        let amount = match self.random.u8(..20) {
            0..=6 => self.random.i64(1..6),
            7..=9 => self.random.i64(1..=self.temper.limit),
            10 if self.chance(30) => MOST,
            10..=11 => 1,
            roll => {
                let also: Vec<String> = match also.is_empty() {
                    true => Vec::new(),
                    false => also.split(',').map(str::to_owned).collect(),
                };
                let room = auditor.room(place, &also, resource);
                match roll {
                    12..=15 => room,
                    16..=17 => room.saturating_add(1),
                    _ => room / 2,
                }
            }
        };
        // Where nothing bounds it, a charge of all that there is would end the life.
        match amount > 1 << 40 && self.temper.limit < 1 << 40 {
            true => self.random.i64(1..100),
            false => amount.clamp(1, MOST),
        }
    }

    /// A subject, with others of its first pair.
    pub(super) fn also_of_any(&mut self) -> (String, String) {
        let subject = self.subject();
        let pair: Vec<&str> = subject.split('/').take(2).collect();
        let (pair, below) = (pair.join("/"), format!("{}/", pair.join("/")));
        let mut others: Vec<&str> = SUBJECTS.to_vec();
        others.retain(|name| *name == pair || name.starts_with(&below));
        let mut also = Vec::new();
        if self.chance(25) {
            for _ in 0..self.random.usize(1..4) {
                also.push(others[self.random.usize(..others.len())]);
            }
            also.sort_unstable();
            also.dedup();
        }
        (subject.to_owned(), also.join(","))
    }

    pub(super) fn ttl(&mut self) -> &'static str {
        self.pick(&["1s", "5s", "1500ms", "30s", "60s", "90s", "10m"])
    }

    pub(super) fn labels(&mut self) -> &'static str {
        self.pick(&[
            "",
            "",
            " label=host:h1",
            " label=host:h2",
            " label=host:h1,rack:r1",
        ])
    }

    fn remember(known: &mut VecDeque<Known>, row: Known) {
        if known.len() >= 12 {
            known.pop_front();
        }
        known.push_back(row);
    }

    fn consume(&mut self, auditor: &Auditor) -> String {
        let (place, also) = self.also_of_any();
        let mut text = self.asked(auditor, "consume", &place, &also, 3);
        let resources = resources_of(&text);
        let kept = resources.iter().any(|resource| stays(resource));
        let mut id = String::new();
        if (kept && self.chance(70))
            || resources.iter().any(|resource| ends(resource))
            || self.chance(3)
        {
            id = format!("a{}", self.random.u8(..4));
            text.push_str(&format!(" id={id}"));
        }
        if resources.iter().any(|resource| ends(resource)) != self.chance(4) {
            text.push_str(&format!(" ttl={}", self.ttl()));
        }
        match self.random.u8(..20) {
            0..=1 => text.push_str(" record"),
            2..=6 if resources.len() == 1 || self.chance(10) => {
                text.push_str(&format!(" best min={}", self.random.i64(1..4)));
            }
            _ => {}
        }
        text.push_str(self.labels());
        text.push_str(self.pick(&[
            "",
            "",
            " near",
            " tightest retry",
            " near tightest retry short",
        ]));
        let row = Known {
            subject: place,
            id,
            also,
            resources,
        };
        Self::remember(&mut self.rows, row);
        text
    }

    /// A row that was asked for, most of the time.
    fn row(&mut self, auditor: &Auditor) -> Known {
        if self.chance(75)
            && let Some(row) = self.one_of(auditor.allocations())
        {
            return row;
        }
        if self.chance(70) && !self.rows.is_empty() {
            let at = self.random.usize(..self.rows.len());
            return self.rows[at].clone();
        }
        Known {
            subject: self.subject().to_owned(),
            id: format!("a{}", self.random.u8(..4)),
            also: String::new(),
            resources: vec![self.resource().to_owned()],
        }
    }

    fn one_of(&mut self, mut rows: Vec<Known>) -> Option<Known> {
        match rows.is_empty() {
            true => None,
            false => Some(rows.swap_remove(self.random.usize(..rows.len()))),
        }
    }

    fn release(&mut self, auditor: &Auditor) -> String {
        let row = self.row(auditor);
        let mut text = format!("release {}", row.subject);
        if self.chance(40) {
            for resource in &row.resources {
                if stays(resource) || self.chance(5) {
                    let have = auditor
                        .account(&row.subject, resource)
                        .0
                        .clamp(1, (1 << 53) - 1);
                    let amount = match self.random.u8(..4) {
                        0 => have,
                        _ => self.random.i64(1..=have.min(30)),
                    };
                    text.push_str(&format!(" {resource} {amount}"));
                }
            }
        }
        self.name_row(&row, &mut text);
        if self.chance(3) {
            text.push_str(" gen=999999999");
        }
        text
    }

    fn name_row(&mut self, row: &Known, text: &mut String) {
        match row.id.is_empty() {
            true if row.also.is_empty() => {}
            true => text.push_str(&format!(" also={}", row.also)),
            false => text.push_str(&format!(" id={}", row.id)),
        }
    }

    fn resize(&mut self, auditor: &Auditor) -> String {
        let mut row = self.row(auditor);
        if row.id.is_empty() {
            row.id = "a0".into();
        }
        let mut text = format!("resize {}", row.subject);
        let mut named = row.resources.clone();
        named.retain(|resource| stays(resource));
        if named.is_empty() || self.chance(15) {
            let other = self.resource().to_owned();
            if !named.contains(&other) {
                named.push(other);
            }
        }
        for resource in named {
            let amount = match self.random.u8(..5) {
                0 => 0,
                1..=2 => self.random.i64(1..30),
                _ => {
                    let has = auditor.account(&row.subject, &resource).0;
                    let more = self.amount(auditor, &row.subject, &row.also, &resource);
                    has.saturating_add(more).min((1 << 53) - 1)
                }
            };
            text.push_str(&format!(" {resource} {amount}"));
        }
        text.push_str(&format!(" id={}", row.id));
        text.push_str(self.pick(&["", "", "", " record", " retry tightest short"]));
        if self.chance(3) {
            text.push_str(" gen=999999999");
        }
        text
    }

    fn reserve(&mut self, auditor: &Auditor, now: i64) -> String {
        let (place, also) = self.also_of_any();
        let mut text = self.asked(auditor, "reserve", &place, &also, 3);
        let resources = resources_of(&text);
        let id = self.hold_id(now);
        text.push_str(&format!(" id={id} ttl={}", self.ttl()));
        let becomes = match self.chance(50) {
            true => format!("a{}", self.random.u8(..4)),
            false => String::new(),
        };
        if !becomes.is_empty() {
            text.push_str(&format!(" as={becomes}"));
        }
        text.push_str(self.labels());
        text.push_str(self.pick(&["", " near tightest retry short"]));
        let hold = Known {
            subject: place,
            id,
            also,
            resources,
        };
        let mut row = hold.clone();
        if !becomes.is_empty() {
            row.id = becomes;
        }
        Self::remember(&mut self.holds, hold);
        if self.chance(50) {
            Self::remember(&mut self.rows, row);
        }
        text
    }

    /// Ids are used for a while only: what ended long ago may be forgotten.
    fn hold_id(&mut self, now: i64) -> String {
        format!("h{}-{}", now / HOLDS_STAY, self.random.u8(..6))
    }

    pub(super) fn hold_name(&mut self, auditor: &Auditor, now: i64) -> Known {
        let age = format!("h{}-", now / HOLDS_STAY);
        if self.chance(75) {
            let over = self.chance(30);
            let mut open = auditor.holds(over);
            open.retain(|hold| hold.id.starts_with(&age));
            if let Some(hold) = self.one_of(open) {
                return hold;
            }
        }
        self.holds.retain(|hold| hold.id.starts_with(&age));
        if self.chance(90) && !self.holds.is_empty() {
            let at = self.random.usize(..self.holds.len());
            return self.holds[at].clone();
        }
        Known {
            subject: self.subject().to_owned(),
            id: self.hold_id(now),
            also: String::new(),
            resources: vec![self.resource().to_owned()],
        }
    }

    fn commit(&mut self, auditor: &Auditor, now: i64) -> String {
        let hold = self.hold_name(auditor, now);
        let mut text = format!("commit {}", hold.subject);
        if self.chance(45) {
            for resource in &hold.resources {
                if self.chance(70) && (!is_rate(resource) || self.chance(10)) {
                    text.push_str(&format!(" {resource} {}", self.random.i64(0..25)));
                }
            }
        }
        text.push_str(&format!(" id={}", hold.id));
        if hold.resources.iter().any(|resource| ends(resource)) != self.chance(6) {
            text.push_str(&format!(" ttl={}", self.ttl()));
        }
        text.push_str(self.pick(&[
            "",
            " more=check",
            " more=record",
            " more=check",
            " more=refuse",
        ]));
        text.push_str(self.pick(&[
            "",
            " late=check",
            " late=record",
            " late=record",
            " late=refuse",
        ]));
        text
    }

    fn renew(&mut self, auditor: &Auditor) -> String {
        let row = self.row(auditor);
        let (one, two) = (self.random.u8(..4), self.random.u8(..4));
        let other = if one == two {
            String::new()
        } else {
            format!(",a{two}")
        };
        format!("renew {} ids=a{one}{other} ttl={}", row.subject, self.ttl())
    }

    fn release_matching(&mut self) -> String {
        let place = match self.random.u8(..4) {
            0 => "system",
            _ => self.subject(),
        };
        let labels = self.pick(&["host:h1", "host:h2", "host:h1,rack:r1", "rack:r1"]);
        // It weighs as much as it may release: more would change whose turn it is.
        let most = self.pick(&[" most=1", " most=2", " most=4"]);
        format!("release-matching {place} label={labels}{most}")
    }

    /// Charges, releases and resizes of one first pair, together.
    fn linked(&mut self, auditor: &Auditor) -> String {
        let mut members: Vec<String> = Vec::new();
        for _ in 0..self.random.usize(2..5) {
            let text = match self.random.u8(..4) {
                0 => self.release(auditor),
                1 => self.resize(auditor),
                _ => self.consume(auditor),
            };
            let pair = |text: &str| -> Vec<String> {
                let place = Call::parse(text).place;
                place.split('/').take(2).map(str::to_owned).collect()
            };
            if members
                .first()
                .is_none_or(|first| pair(first) == pair(&text))
            {
                members.push(text);
            }
        }
        format!("linked {}", members.join(" ; "))
    }
}

/// The resources that a call names.
fn resources_of(text: &str) -> Vec<String> {
    let amounts = Call::parse(text).amounts;
    amounts.into_iter().map(|(resource, _)| resource).collect()
}
