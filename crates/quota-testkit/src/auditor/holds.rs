//! Holds: reserve, commit, renew and cancel.

use super::Done;
use super::book::{Book, Kind, Row, State};
use super::calls::{also, amount_of, amounts, ns, sum, word};
use super::judge::Mode;
use crate::script::Call;

impl Book {
    pub(super) fn reserve(&mut self, call: &Call) -> Done {
        let (amounts, also) = (amounts(call), also(call)?);
        let made = format!("hold-{}", self.revision + 1);
        let id = call.option("id").unwrap_or(&made).to_owned();
        let becomes = call.option("as").unwrap_or(&id).to_owned();
        self.kinds(&amounts)?;
        let set = Self::set(&call.place, &also);
        self.guard_birth(&call.place, &also, &set)?;
        let live = self.find_hold(&call.place, &id);
        if live.is_some_and(|at| self.end_of(at).is_none())
            || self.find(false, &call.place, Some(&becomes), &[]).is_some()
        {
            return Err("EXISTS");
        }
        let judged = self.judge(&call.place, &set, &amounts, Mode::Strict);
        if judged.is_denied() {
            return Ok((judged.text(call), true));
        }
        self.be_born(&set);
        let rates = self.of_kinds(&amounts, &[Kind::Rate]);
        self.count(&set, &rates);
        let spent = self.of_kinds(&amounts, &[Kind::Rate, Kind::PerRequest]);
        let held = [Kind::Allocation, Kind::Concurrency, Kind::Counter];
        let ttl = call.option("ttl").unwrap_or("60s");
        let row = Row {
            held: true,
            amounts: self.of_kinds(&amounts, &held),
            spent: spent.into_iter().map(|(key, _)| key).collect(),
            becomes,
            expires: Some(self.now + ns(ttl)),
            ..self.row(call, &also, Some(id))
        };
        self.put(row);
        Ok((judged.text(call).replacen("granted", "held", 1), false))
    }

    pub(super) fn commit(&mut self, call: &Call) -> Done {
        let named = amounts(call);
        self.kinds(&named)?;
        let id = call.option("id").unwrap();
        let at = self.find_hold(&call.place, id).ok_or("HOLD_UNKNOWN")?;
        let row = self.rows[at].clone();
        let (more, late) = (word(call, "more"), word(call, "late"));
        let is_late = self.end_of(at) == Some("EXPIRED") && late != "refuse" && !row.late;
        if self.end_of(at).is_some() && !is_late {
            return Err("HOLD_ENDED");
        }
        if named.iter().any(|(key, _)| row.spent.contains(key)) {
            return Err("INVALID_FIELDS");
        }
        let mut charged = named.clone();
        for (key, amount) in &row.amounts {
            if !named.iter().any(|(have, _)| have == key) {
                charged.push((key.clone(), *amount));
            }
        }
        // Those that keep what is held come first.
        charged.sort_by_key(|(key, _)| named.iter().any(|(have, _)| have == key));
        charged.retain(|(_, amount)| *amount > 0);
        let mut beyond = Vec::new();
        for (key, amount) in &charged {
            let held = amount_of(&row.amounts, key);
            if *amount > held {
                if more == "refuse" {
                    return Err("HOLD_TOO_SMALL");
                }
                beyond.push((key.clone(), amount - held));
            }
        }
        let kept = self.of_kinds(&charged, &[Kind::Allocation, Kind::Concurrency]);
        let ends = kept
            .iter()
            .any(|(key, _)| self.kind(key) == Kind::Concurrency);
        if ends != call.option("ttl").is_some() {
            return Err("INVALID_FIELDS");
        }
        let taken = self.find(false, &row.subject, Some(&row.becomes), &[]);
        if !kept.is_empty() && taken.is_some() {
            return Err("EXISTS");
        }
        let mut how = more;
        if is_late {
            // What was held is no more; all of it is asked anew, more than that by the stricter word.
            let stricter = late == "check" || (!beyond.is_empty() && more == "check");
            how = if stricter { "check" } else { late };
            beyond.clone_from(&charged);
            self.rows[at].state = State::Ended("EXPIRED");
        }
        let mode = match how {
            "record" => Mode::Record,
            _ => Mode::Strict,
        };
        let set = Self::set(&row.subject, &row.also);
        let judged = self.judge(&row.subject, &set, &beyond, mode);
        if judged.is_denied() {
            self.rows[at].state = row.state;
            return Ok((judged.text(call), true));
        }
        self.rows[at].late = is_late;
        self.rows[at].state = State::Ended(if is_late { "EXPIRED" } else { "COMMITTED" });
        self.count(&set, &charged);
        if !kept.is_empty() {
            let allocation = Row {
                held: false,
                id: Some(row.becomes.clone()),
                amounts: sum(&[], &kept),
                spent: Vec::new(),
                expires: call.option("ttl").map(|ttl| self.now + ns(ttl)),
                generation: self.revision + 1,
                state: State::Live,
                late: false,
                ..row
            };
            self.put(allocation);
        }
        Ok((judged.text(call).replacen("granted", "committed", 1), false))
    }

    pub(super) fn renew_hold(&mut self, call: &Call) -> Result<String, &'static str> {
        let at = self.live_hold(call)?;
        let until = self.now + ns(call.option("ttl").unwrap());
        let row = &mut self.rows[at];
        row.expires = row.expires.max(Some(until));
        Ok("renewed".to_owned())
    }

    pub(super) fn cancel(&mut self, call: &Call) -> Result<String, &'static str> {
        let at = self.live_hold(call)?;
        self.rows[at].state = State::Ended("CANCELLED");
        Ok("CANCELLED".to_owned())
    }

    pub(super) fn find_hold(&self, subject: &str, id: &str) -> Option<usize> {
        self.rows.iter().position(|row| {
            row.held
                && row.subject == subject
                && row.id.as_deref() == Some(id)
                && self.is_alive(row)
        })
    }

    pub(super) fn end_of(&self, at: usize) -> Option<&'static str> {
        match &self.rows[at].state {
            State::Ended(how) => Some(how),
            State::Live => self.rows[at].is_over(self.now).then_some("EXPIRED"),
        }
    }

    fn live_hold(&self, call: &Call) -> Result<usize, &'static str> {
        let at = self.find_hold(&call.place, call.option("id").unwrap());
        let at = at.ok_or("HOLD_UNKNOWN")?;
        match self.end_of(at) {
            Some(_) => Err("HOLD_ENDED"),
            None => Ok(at),
        }
    }
}
