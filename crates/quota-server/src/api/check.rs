//! CheckService: the ledger's evaluation over the published state (C6.1). It never waits for the writer and
//! goes on while the journal is down.

use std::sync::Arc;

use quota_core::decide::may_be;
use quota_core::rejection::Rejection;
use quota_proto::v1;
use quota_proto::v1::check_service_server::CheckService;
use tonic::{Request, Response, Status};

use super::from_proto::Reader;
use super::{split, status, to_proto};
use crate::engine::Engine;

/// The service.
pub struct Check {
    engine: Arc<Engine>,
}

impl Check {
    /// The service on an engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl CheckService for Check {
    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        let (request, _) = split(request)?;
        let views = self.engine.views();
        let tables = views.tables();
        let mut reader = Reader::default();
        let subject = reader.subject("subject", &request.subject);
        let also = reader.also(&subject, &request.also);
        let amounts = reader.some_amounts(&tables.resources, &request.amounts, 1);
        let mode = reader.mode(request.mode);
        reader.unsupported(
            "consistent",
            request.consistent,
            "one instant over all accounts",
        );
        reader.finish_read()?;

        let snapshot = views.snapshot(&subject, &also);
        let named = std::iter::once(&subject).chain(&also);
        let unknown = may_be(self.engine.auto_create(), named, |name| {
            snapshot.exists(name)
        });
        if let Some(unknown) = unknown {
            let rejection = Rejection::SubjectUnknown(unknown.clone());
            return Err(status::of_rejection(&rejection));
        }
        let coming = snapshot.unknown();
        let most = self.engine.subjects_max();
        if coming > 0 && views.count().saturating_add(coming) > most {
            let what = "subjects_max";
            return Err(status::of_rejection(&Rejection::Capacity { what, most }));
        }
        let scene = snapshot.scene();
        let verdict = scene.evaluate(&amounts, mode);
        Ok(Response::new(v1::CheckResponse {
            decision: to_proto::decision(verdict.decision),
            refusals: to_proto::findings(&verdict.refusals),
            exceeded: to_proto::findings(&verdict.exceeded),
            effective_limits: amounts
                .iter()
                .map(|(key, _)| to_proto::effective_limit(key, scene.effective_limit(key)))
                .collect(),
            unbounded_resources: to_proto::keys(&verdict.unbounded),
            decide_time: Some(to_proto::timestamp(self.engine.clock().now())),
            journal_unavailable: self.engine.is_journal_down(),
        }))
    }
}
