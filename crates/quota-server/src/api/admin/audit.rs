//! What happened, and whether the record of it is whole.

use std::ops::ControlFlow;

use quota_core::time::Timestamp;
use quota_proto::v1;
use quota_store::journal::{JournalError, JournalReader, verify};
use tonic::Status;

use super::Admin;
use crate::api::events::Filter;
use crate::api::from_proto::{Caller, Reader};
use crate::api::{page, watch::blocking};
use crate::feed::{Feed, FeedError, Place};

/// Most batches and events that are looked at for one page: what is rare is found page by page, each in time.
const PAGE_LOOKED_MAX: usize = 50_000;
/// Bytes of batches after which a check says where to go on.
const CHECKED_BYTES_MAX: u64 = 64 << 20;
/// Longest name that an event can bear, in bytes.
const NAME_BYTES_MAX: usize = 128;

impl Admin {
    pub(super) async fn list_events(
        &self,
        request: v1::ListEventsRequest,
        _: Caller,
    ) -> Result<v1::ListEventsResponse, Status> {
        let mut reader = Reader::default();
        let mut filter = Filter::read(
            &mut reader,
            &request.subject_prefix,
            &request.kinds,
            request.severity_min,
        );
        for (field, text) in [
            ("actor", &request.actor),
            ("operation_id", &request.operation_id),
        ] {
            if text.len() > NAME_BYTES_MAX {
                let long = format!("has {} bytes; at most {NAME_BYTES_MAX}", text.len());
                reader.wrong(field, long);
            }
        }
        let start = reader.instant("start_time", request.start_time);
        let end = reader.instant("end_time", request.end_time);
        if let (Some(start), Some(end)) = (start, end)
            && end < start
        {
            reader.wrong("end_time", "is before start_time");
        }
        let size = page::size(&mut reader, request.page_size);
        let digest = format!(
            "ListEvents {filter:?} {:?} {start:?} {end:?}",
            (&request.actor, &request.operation_id)
        );
        let after = page::after(&mut reader, &digest, &request.page_token);
        let at = place_of_text(&after).filter(|place| self.feed.is_durable(place));
        if at.is_none() && !after.is_empty() {
            reader.wrong("page_token", "names no place in this journal");
        }
        reader.finish()?;
        filter.actor = request.actor;
        filter.operation = request.operation_id;
        let _one = self.scans.acquire().await;
        let feed = self.feed.clone();
        let listed = blocking(move || listed(&feed, &filter, at, start, end, size));
        let (events, next, first_sequence) = listed.await?;
        Ok(v1::ListEventsResponse {
            events,
            next_page_token: next.map_or(String::new(), |place| {
                page::token(&digest, &format!("{}.{}", place.batch, place.event))
            }),
            first_sequence,
        })
    }

    pub(super) async fn verify_audit(
        &self,
        request: v1::VerifyAuditRequest,
        _: Caller,
    ) -> Result<v1::VerifyAuditResponse, Status> {
        let mut reader = Reader::default();
        let previous = match request.previous_hash.as_str() {
            "" => None,
            text => {
                let hash = blake3::Hash::from_hex(text).map_err(|_| {
                    let text = "is no hash: 64 hexadecimal digits, such as the last_hash of a call";
                    reader.wrong("previous_hash", text);
                });
                hash.ok().map(|hash| *hash.as_bytes())
            }
        };
        reader.finish()?;
        let _one = self.scans.acquire().await;
        let feed = self.feed.clone();
        blocking(move || verified(&**feed.reader(), request.from_batch, previous)).await
    }
}

fn place_of_text(text: &str) -> Option<Place> {
    let (batch, event) = text.split_once('.')?;
    Some(Place::new(batch.parse().ok()?, event.parse().ok()?))
}

/// A page of events, where the next begins, and the number of the oldest event that is kept.
type Listed = (Vec<v1::Event>, Option<Place>, u64);

fn listed(
    feed: &Feed,
    filter: &Filter,
    at: Option<Place>,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    size: usize,
) -> Result<Listed, FeedError> {
    let first = feed.first_event()?;
    let mut place = match (at, start) {
        (Some(place), _) => place,
        (None, Some(start)) => feed.at_time(start)?,
        (None, None) => Place::new(feed.reader().first_sequence(), 0),
    };
    let mut over = false;
    let events = feed.collect(&mut place, size, PAGE_LOOKED_MAX, |number, told| {
        if end.is_some_and(|end| told.at >= end) {
            over = true;
            return ControlFlow::Break(());
        }
        let within = start.is_none_or(|start| told.at >= start);
        ControlFlow::Continue(within.then(|| filter.pick(number, told)).flatten())
    })?;
    let done = over || feed.is_at_end(&place);
    Ok((events, (!done).then_some(place), first))
}

fn verified(
    reader: &dyn JournalReader,
    from: u64,
    follows: Option<[u8; 32]>,
) -> Result<v1::VerifyAuditResponse, FeedError> {
    let from = match from {
        0 => reader.first_sequence(),
        from => from,
    };
    match verify(reader, from, follows, CHECKED_BYTES_MAX) {
        Ok(found) => Ok(v1::VerifyAuditResponse {
            first_batch: found.first.map_or(0, |first| first.sequence),
            last_batch: found.last.map_or(0, |last| last.sequence),
            last_hash: found.last.map(|last| hex(&last.hash)).unwrap_or_default(),
            next_batch: if found.is_end { 0 } else { found.next },
            problem: String::new(),
        }),
        Err(damage @ (JournalError::Damaged { .. } | JournalError::Batch { .. })) => {
            // Where the caller says what it follows on, it may be the caller who is wrong.
            match follows {
                None => tracing::error!(%damage, "the audit does not hold"),
                Some(_) => tracing::warn!(%damage, "the audit does not follow on what was named"),
            }
            Ok(v1::VerifyAuditResponse {
                problem: damage.to_string(),
                ..v1::VerifyAuditResponse::default()
            })
        }
        Err(error) => Err(error.into()),
    }
}

fn hex(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}
