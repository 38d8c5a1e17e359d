//! CheckService: the ledger's evaluation over the published state (C6.1). It never waits for the writer and
//! goes on while the journal is down, unless one instant over all accounts is asked for.

use std::sync::Arc;

use quota_core::charge::charge_set;
use quota_core::command::Amounts;
use quota_core::decide::{Use, may_be};
use quota_core::evaluate::Scene;
use quota_core::name::SubjectName;
use quota_core::rejection::Rejection;
use quota_core::resource::Resources;
use quota_core::time::Timestamp;
use quota_core::verdict::{Mode, Verdict};
use quota_proto::v1;
use quota_proto::v1::check_service_server::CheckService;
use tonic::{Request, Response, Status};

use super::from_proto::Reader;
use super::{batch, split, status, take_turns, to_proto};
use crate::engine::Engine;
use crate::telemetry::traces::CallSpan;

/// The service.
pub struct Check {
    engine: Arc<Engine>,
}

/// A question, read.
struct Question {
    subject: SubjectName,
    also: Vec<SubjectName>,
    amounts: Amounts,
    mode: Mode,
    consistent: bool,
}

impl Check {
    /// The service on an engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    async fn answer(
        &self,
        question: Question,
        span: Option<CallSpan>,
    ) -> Result<v1::CheckResponse, Status> {
        if let Some(span) = &span {
            span.asked(question.subject.as_str(), question.amounts.len());
        }
        if question.consistent {
            let engine = self.engine.clone();
            let read = self.engine.read(move |ledger| {
                let clock_now = engine.clock().now();
                let names = charge_set(&question.subject, &question.also);
                let known = |name: &str| ledger.subject(name).is_some();
                let count = ledger.subjects_count();
                question.guard(
                    known,
                    &names,
                    count,
                    ledger.bounds().auto_create,
                    ledger.bounds().subjects_max,
                )?;
                let scene = ledger.scene(question.subject.as_str(), &names, clock_now);
                let verdict = question.evaluate(&scene);
                engine.metrics().checked(&verdict);
                if let Some(span) = &span {
                    span.decided(verdict.decision);
                }
                Ok(question.answered(&scene, &verdict, clock_now, false))
            });
            let answer = read.await.map_err(|fault| status::of_fault(&fault))?;
            return answer.map_err(|rejection: Rejection| status::of_rejection(&rejection));
        }
        self.answer_from_views(&question, span.as_ref())
            .map_err(|rejection| status::of_rejection(&rejection))
    }

    fn answer_from_views(
        &self,
        question: &Question,
        span: Option<&CallSpan>,
    ) -> Result<v1::CheckResponse, Rejection> {
        let views = self.engine.views();
        let snapshot = views.snapshot(&question.subject, &question.also);
        let names = charge_set(&question.subject, &question.also);
        let engine = &self.engine;
        let metrics = engine.metrics();
        metrics.looked_up(snapshot.known(), snapshot.unknown());
        let known = |name: &str| snapshot.exists(name);
        question.guard(
            known,
            &names,
            views.count(),
            engine.auto_create(),
            engine.subjects_max(),
        )?;
        // The state was taken first: the instant is at or after every change in it.
        let now = engine.clock().now();
        let scene = snapshot.scene(now);
        let verdict = question.evaluate(&scene);
        metrics.checked(&verdict);
        if let Some(span) = span {
            span.decided(verdict.decision);
        }
        Ok(question.answered(&scene, &verdict, now, engine.is_journal_down()))
    }
}

impl Question {
    fn read(reader: &mut Reader, resources: &Resources, request: &v1::CheckRequest) -> Self {
        let subject = reader.subject("subject", &request.subject);
        let also = reader.also(&subject, &request.also);
        let amounts = reader.some_amounts(&request.amounts, 1);
        reader.doubt(resources, &amounts, Use::Check);
        let mode = reader.mode(request.mode, request.minimum, &amounts);
        Self {
            subject,
            also,
            amounts,
            mode,
            consistent: request.consistent,
        }
    }

    /// What a Consume would be rejected for.
    fn guard(
        &self,
        exists: impl Fn(&str) -> bool,
        names: &[&str],
        count: usize,
        auto_create: quota_core::ledger::AutoCreate,
        most: usize,
    ) -> Result<(), Rejection> {
        let named = std::iter::once(&self.subject).chain(&self.also);
        if let Some(unknown) = may_be(auto_create, named, &exists) {
            return Err(Rejection::SubjectUnknown(unknown.clone()));
        }
        let coming = names.iter().filter(|name| !exists(name)).count();
        match coming > 0 && count.saturating_add(coming) > most {
            true => Err(Rejection::Capacity {
                what: "subjects_max",
                most,
            }),
            false => Ok(()),
        }
    }

    fn evaluate(&self, scene: &Scene<'_>) -> Verdict {
        scene.evaluate(&self.amounts, self.mode)
    }

    fn answered(
        &self,
        scene: &Scene<'_>,
        verdict: &Verdict,
        now: Timestamp,
        journal_unavailable: bool,
    ) -> v1::CheckResponse {
        let projected = match verdict.partial {
            Some(_) => verdict.granted(&self.amounts),
            None => self.amounts.clone(),
        };
        v1::CheckResponse {
            verdict: Some(to_proto::verdict(verdict)),
            effective_limits: self
                .amounts
                .iter()
                .flat_map(|(key, _)| to_proto::effective_limits(key, &scene.effective_limits(key)))
                .collect(),
            projections: to_proto::projections(&scene.project(&projected)),
            decide_time: Some(to_proto::timestamp(now)),
            journal_unavailable,
        }
    }
}

#[tonic::async_trait]
impl CheckService for Check {
    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        let (request, caller) = split(request)?;
        let tables = self.engine.views().tables();
        let mut reader = Reader::default();
        let question = Question::read(&mut reader, &tables.resources, &request);
        reader.finish_read()?;
        self.answer(question, caller.span).await.map(Response::new)
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        use v1::batch_check_result::Result as Kind;
        let (request, caller) = split(request)?;
        batch::guard_size("checks", request.checks.len())?;
        if let (Some(span), Some(first)) = (&caller.span, request.checks.first()) {
            span.asked(&first.subject, request.checks.len());
        }
        let tables = self.engine.views().tables();
        let mut results = Vec::with_capacity(request.checks.len());
        for (step, check) in request.checks.iter().enumerate() {
            take_turns(step).await;
            let mut reader = Reader::default();
            let question = Question::read(&mut reader, &tables.resources, check);
            if question.consistent {
                reader.wrong("consistent", "is set; a batch reads the published state");
            }
            let answer = reader
                .finish_read_item()
                .and_then(|()| self.answer_from_views(&question, None));
            results.push(v1::BatchCheckResult {
                result: Some(match answer {
                    Ok(answer) => Kind::Check(answer),
                    Err(rejection) => Kind::Error(status::item_error(&rejection)),
                }),
            });
        }
        Ok(Response::new(v1::BatchCheckResponse { results }))
    }
}
