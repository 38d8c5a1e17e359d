//! What a kill left untold: whose usage changed in the last seconds of the journal, and was not told of.

use std::time::Duration;

use quota_core::charge::charge_set;
use quota_core::name::ResourceKey;
use quota_core::tally::Tally;
use quota_core::time::Timestamp;
use quota_store::batch::Head;
use quota_store::journal::{JournalError, JournalReader};
use quota_store::told::{Told, ToldBatch, What};

/// What is looked at before the last batch. Usage is told in the second after it changed, by a writer that keeps up.
const BEFORE: Duration = Duration::from_secs(3);

/// What is left to tell after the batch of this instant, which is the last.
pub(super) fn untold(reader: &dyn JournalReader, last: Timestamp) -> Result<Tally, JournalError> {
    let from = last.minus(BEFORE);
    let mut cursor =
        reader.seek(&mut |sequence, body| Ok(Head::of_batch(sequence, body)?.now < from))?;
    let mut tally = Tally::default();
    while let Some(kept) = cursor.next()? {
        if Head::of_batch(kept.sequence, &kept.body)?.now >= from {
            let told = ToldBatch::read(&kept.body);
            let told = told.map_err(JournalError::of_batch(kept.sequence))?;
            told.events
                .iter()
                .for_each(|event| count(&mut tally, event));
        }
    }
    Ok(tally)
}

fn count(tally: &mut Tally, told: &Told) {
    let mut stir = |subject, also, resources: &mut dyn Iterator<Item = &ResourceKey>| {
        let names = charge_set(subject, also);
        for resource in resources {
            for name in &names {
                tally.stir(told.at, name, resource);
            }
        }
    };
    match &told.what {
        What::Charged(charged) => {
            let changed = charged.used.iter().chain(&charged.held);
            let mut resources = changed.map(|(resource, _)| resource);
            stir(&charged.subject, &charged.also, &mut resources);
        }
        What::UsageCorrected {
            subject,
            also,
            amounts,
            ..
        } => stir(
            subject,
            also,
            &mut amounts.iter().map(|(resource, _)| resource),
        ),
        What::UsageReset {
            subject, resource, ..
        } => tally.stir(told.at, subject.as_str(), resource),
        What::Usage(usage) => tally.was_told(&usage.subject),
        _ => {}
    }
}
