//! Verdicts for people and programs.

use quota_client::v1::{Allocation, Decision, Hold, LimitHeadroom, Verdict};
use serde_json::Value;

use crate::operate::list;
use crate::output::{Output, findings, time};
use crate::times;
use crate::units::Units;
use crate::{Ending, Failure, json as show};

/// The answer to a consume, a resize, a reserve or a commit.
pub(crate) struct Answered {
    pub(crate) verdict: Verdict,
    /// The word for yes.
    pub(crate) granted: &'static str,
    pub(crate) allocation: Option<Allocation>,
    pub(crate) hold: Option<Hold>,
    pub(crate) operation_id: String,
    pub(crate) replayed: bool,
}

impl Answered {
    pub(crate) async fn print(
        self,
        units: &mut Units<'_>,
        output: &Output,
    ) -> Result<Ending, Failure> {
        let ending = ending(&self.verdict);
        if output.is_json() {
            let mut shown = show::verdict(&self.verdict);
            shown["allocation"] = self
                .allocation
                .as_ref()
                .map_or(Value::Null, show::allocation);
            if let Some(hold) = &self.hold {
                shown["hold"] = show::hold(hold);
            }
            shown["operation_id"] = self.operation_id.into();
            shown["replayed"] = self.replayed.into();
            output.object(&shown)?;
            return Ok(ending);
        }
        let mut told = text(units, &self.verdict, self.granted).await;
        if let Some(hold) = &self.hold {
            told.push_str(&format!("{}\n", describe_hold(units, hold).await));
        }
        if let Some(allocation) = &self.allocation {
            told.push_str(&format!("{}\n", describe(units, allocation).await));
        }
        if self.replayed {
            told.push_str("This is the stored answer of an earlier call with this operation id.\n");
        }
        output.text(&told)?;
        Ok(ending)
    }
}

pub(crate) fn ending(verdict: &Verdict) -> Ending {
    match verdict.decision() {
        Decision::Denied => Ending::Refused,
        _ => Ending::Done,
    }
}

/// A verdict in words, with the limits that led to it.
pub(crate) async fn text(units: &mut Units<'_>, verdict: &Verdict, granted: &str) -> String {
    let mut text = match verdict.decision() {
        Decision::Denied => format!("refused\n{}\n", findings(units, &verdict.refusals).await),
        Decision::Delayed => {
            let wait = verdict.delay.as_ref().map(times::wait).unwrap_or_default();
            format!("{granted}, to be acted on after {wait}\n")
        }
        Decision::Partial => {
            let resource = verdict
                .tightest_limits
                .first()
                .map(|limit| limit.resource.clone());
            let amount = verdict.granted_amount.unwrap_or_default();
            let amount = units.show(&resource.unwrap_or_default(), amount).await;
            format!("{granted} in part: {amount}\n")
        }
        Decision::Granted | Decision::Unspecified => format!("{granted}\n"),
    };
    for (what, found) in [
        ("as a fact, above these limits", &verdict.exceeded),
        ("with a warning", &verdict.warnings),
        ("these limits would have refused (SHADOW)", &verdict.shadows),
    ] {
        if !found.is_empty() {
            text.push_str(&format!("{what}\n{}\n", findings(units, found).await));
        }
    }
    for near in &verdict.near_limits {
        text.push_str(&headroom(units, near).await);
    }
    text
}

/// A limit that is nearly full, as a line.
async fn headroom(units: &mut Units<'_>, near: &LimitHeadroom) -> String {
    let key = &near.resource;
    let percent = i128::from(near.taken) * 100 / i128::from(near.limit.max(1));
    let taken = units.show(key, near.taken).await;
    let limit = units.show(key, near.limit).await;
    let until = match &near.period_end_time {
        Some(end) => format!(", until {}", time(Some(*end))),
        None => String::new(),
    };
    format!(
        "near: {} of {}: {taken} of {limit} ({percent} %{until})\n",
        near.quota, near.subject
    )
}

pub(crate) async fn describe(units: &mut Units<'_>, allocation: &Allocation) -> String {
    let amounts = list(units, &allocation.amounts).await;
    let until = match allocation.expire_time {
        Some(_) => format!(", until {}", time(allocation.expire_time)),
        None => String::new(),
    };
    format!(
        "{}: {amounts} (generation {}{until})",
        allocation.name, allocation.generation
    )
}

pub(crate) async fn describe_hold(units: &mut Units<'_>, hold: &Hold) -> String {
    let amounts = list(units, &hold.amounts).await;
    let state = hold.state().as_str_name().trim_start_matches("HOLD_STATE_");
    let until = time(hold.expire_time);
    format!("{}: {amounts} ({state}, until {until})", hold.name)
}
