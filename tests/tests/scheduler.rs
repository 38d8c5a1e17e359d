//! A VM scheduler that reserves, creates, and commits or cancels, while the server is killed on the way and
//! the scheduler itself forgets what it was doing: in the end every account is what the VMs say.

use std::time::Duration;

use fastrand::Rng;
use quota_client::v1::{
    self, Amount, CancelHoldRequest, CommitHoldRequest, Decision, ErrorReason, GetUsageRequest,
    ListAllocationsRequest, Quota, ReleaseRequest, ReserveRequest, UncoveredPolicy,
    UpdateQuotaRequest, VerifyInvariantsRequest,
};
use quota_client::{Client, Error, Options, ProtoDuration};
use quota_tests::process::Server;

/// VMs that are asked for; `QUOTA_TEST_VMS` sets another number.
const VMS: usize = 1_000;
const LIMIT: i64 = 100_000;

fn vms() -> usize {
    let set = std::env::var("QUOTA_TEST_VMS").ok();
    set.map_or(VMS, |number| number.parse().expect("a number"))
}

/// What the scheduler believes of one VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Vm {
    Running(i64),
    Absent,
}

struct Scheduler {
    client: Client,
    random: Rng,
}

fn amount(cpu: i64) -> Vec<Amount> {
    vec![Amount {
        resource: "compute.cpu".into(),
        amount: cpu,
    }]
}

fn project(number: usize) -> String {
    format!("tenants/t{}/projects/p{}", number % 3, number % 7)
}

impl Scheduler {
    /// Asks until there is an answer, with the same operation id: what a scheduler with a queue does.
    async fn surely<T, F: Future<Output = Result<T, Error>>>(
        &self,
        ask: impl Fn(Client) -> F,
    ) -> Result<T, Error> {
        for _ in 0..2_000 {
            match ask(self.client.clone()).await {
                Err(error) if error.is_lost() => {
                    tokio::time::sleep(Duration::from_millis(10)).await
                }
                answered => return answered,
            }
        }
        panic!("no answer for twenty seconds");
    }

    /// One VM from the first call to the last.
    async fn vm(&mut self, number: usize) -> Vm {
        let (subject, cpu) = (project(number), self.random.i64(1..4) * 1000);
        let reserve = ReserveRequest {
            subject: subject.clone(),
            amounts: amount(cpu),
            hold_id: format!("vm-{number}"),
            ttl: Some(ProtoDuration {
                seconds: 3600,
                nanos: 0,
            }),
            operation_id: format!("vm-{number}-reserve"),
            ..ReserveRequest::default()
        };
        let reserve = |client: Client| {
            let request = reserve.clone();
            async move { client.reserve(request).await }
        };
        let answer = self.surely(reserve).await.unwrap();
        if answer.decision() == Decision::Denied {
            return Vm::Absent;
        }
        // The scheduler died after asking and begins again: the same call is the same hold.
        if self.random.u8(..4) == 0 {
            let again = self.surely(reserve).await.unwrap();
            assert!(again.replayed);
            assert_eq!(again.hold, answer.hold);
        }
        match self.random.u8(..4) {
            0 => {
                self.cancel(&subject, number).await;
                Vm::Absent
            }
            // Smaller than it was asked for, or as asked.
            other => {
                let real = if other == 1 { cpu / 2 } else { cpu };
                self.commit(&subject, number, real).await;
                // Most VMs do not live long, so that there is always room for some and never for all.
                if self.random.u8(..10) > 0 {
                    self.release(&subject, number).await;
                    return Vm::Absent;
                }
                Vm::Running(real)
            }
        }
    }

    async fn commit(&self, subject: &str, number: usize, cpu: i64) {
        let commit = CommitHoldRequest {
            subject: subject.into(),
            hold_id: format!("vm-{number}"),
            amounts: amount(cpu),
            more: UncoveredPolicy::Refuse.into(),
            operation_id: format!("vm-{number}-commit"),
            ..CommitHoldRequest::default()
        };
        let commit = |client: Client| {
            let request = commit.clone();
            async move { client.commit_hold(request).await }
        };
        let answer = self.surely(commit).await.unwrap();
        assert_eq!(answer.decision(), Decision::Granted);
        // Another operation on what has ended.
        let twice = CommitHoldRequest {
            subject: subject.into(),
            hold_id: format!("vm-{number}"),
            ..CommitHoldRequest::default()
        };
        if number.is_multiple_of(10) {
            let twice = |client: Client| {
                let request = twice.clone();
                async move { client.commit_hold(request).await }
            };
            let error = self.surely(twice).await.unwrap_err();
            assert_eq!(error.reason, Some(ErrorReason::HoldEnded));
        }
    }

    async fn release(&self, subject: &str, number: usize) {
        let release = ReleaseRequest {
            subject: subject.into(),
            allocation_id: format!("vm-{number}"),
            operation_id: format!("vm-{number}-release"),
            ..ReleaseRequest::default()
        };
        let release = |client: Client| {
            let request = release.clone();
            async move { client.release(request).await }
        };
        self.surely(release).await.unwrap();
    }

    async fn cancel(&self, subject: &str, number: usize) {
        let cancel = CancelHoldRequest {
            subject: subject.into(),
            hold_id: format!("vm-{number}"),
            operation_id: format!("vm-{number}-cancel"),
            ..CancelHoldRequest::default()
        };
        let cancel = |client: Client| {
            let request = cancel.clone();
            async move { client.cancel_hold(request).await }
        };
        self.surely(cancel).await.unwrap();
    }
}

fn client(endpoint: &str) -> Client {
    Client::new(Options {
        endpoint: endpoint.into(),
        timeout: Duration::from_secs(2),
        retry_for: Duration::ZERO,
        ..Options::default()
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vm_is_charged_once_whatever_crashes() {
    let directory = tempfile::tempdir().unwrap();
    // One address for all lives of the server.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let start = || Server::start_with(directory.path(), &["--listen", &address]);
    let server = start();
    let endpoint = server.endpoint.clone();
    let admin = client(&endpoint);
    let quota = Quota {
        subject: "system".into(),
        resource: "compute.cpu".into(),
        limit: Some(v1::Limit {
            limit: Some(v1::limit::Limit::Value(LIMIT)),
        }),
        ..Quota::default()
    };
    let request = UpdateQuotaRequest {
        quota: Some(quota),
        allow_missing: true,
        ..UpdateQuotaRequest::default()
    };
    admin.update_quota(request).await.unwrap();

    let count = vms();
    let workers = 8;
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let mut scheduler = Scheduler {
                client: client(&endpoint),
                random: Rng::with_seed(worker as u64),
            };
            tokio::spawn(async move {
                let mut vms = Vec::new();
                for number in (worker..count).step_by(workers) {
                    vms.push((number, scheduler.vm(number).await));
                }
                vms
            })
        })
        .collect();
    let mut server = server;
    let mut kills = 0;
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if kills < 8 {
            server.kill();
            server = start();
            kills += 1;
        }
    }
    let mut running = std::collections::BTreeMap::new();
    for task in tasks {
        for (number, vm) in task.await.unwrap() {
            if let Vm::Running(cpu) = vm {
                running.insert(format!("{}/allocations/vm-{number}", project(number)), cpu);
            }
        }
    }
    server.kill();
    let server = start();
    let admin = client(&server.endpoint);
    let mut found = std::collections::BTreeMap::new();
    let mut request = ListAllocationsRequest {
        page_size: 1000,
        ..ListAllocationsRequest::default()
    };
    loop {
        let page = admin.list_allocations(request.clone()).await.unwrap();
        for row in page.allocations {
            found.insert(row.name, row.amounts[0].amount);
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(found, running);
    let request = GetUsageRequest {
        subject: "system".into(),
        resource: "compute.cpu".into(),
    };
    let usage = admin.get_usage(request).await.unwrap().usage.unwrap();
    let total: i64 = running.values().sum();
    assert_eq!(
        (usage.resources[0].used, usage.resources[0].held),
        (total, 0)
    );
    assert!(total <= LIMIT);
    let broken = admin
        .verify_invariants(VerifyInvariantsRequest {})
        .await
        .unwrap();
    assert!(broken.violations.is_empty(), "{:?}", broken.violations);
    eprintln!(
        "{count} VMs, {} running, {total} millicores, {kills} kills",
        running.len()
    );
}
