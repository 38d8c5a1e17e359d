//! C1.3 over the wire: a wall clock that steps is not followed, says so in a health service of its own, and is
//! accepted by an operator; one bad reading does not expire the world.

use std::sync::Arc;
use std::time::Duration;

use quota_client::v1::{
    AcceptClockRequest, Amount, CheckRequest, Decision, ErrorReason, GetHoldRequest,
    GetServerInfoRequest, HoldState, ReserveRequest,
};
use quota_core::Bounds;
use quota_server::clock::{ClockOptions, ManualMachine, SystemClock};
use quota_tests::grpc::InProcess;
use quota_tests::worlds::TestStore;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SECOND: i64 = 1_000_000_000;
const YEAR: i64 = 365 * 24 * 3600 * SECOND;

fn clock(machine: &ManualMachine) -> Arc<SystemClock<ManualMachine>> {
    let options = ClockOptions {
        step_max: Duration::from_secs(10),
        downtime_max: Duration::from_secs(30 * 24 * 3600),
        accept: false,
    };
    Arc::new(SystemClock::start(machine.clone(), None, options).unwrap())
}

async fn health(endpoint: &str, service: &str) -> ServingStatus {
    let channel = Endpoint::from_shared(endpoint.to_owned()).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let request = HealthCheckRequest {
        service: service.into(),
    };
    client.check(request).await.unwrap().into_inner().status()
}

async fn until(endpoint: &str, wanted: ServingStatus) {
    while health(endpoint, "quota.v1.Clock").await != wanted {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_year_forward_and_back() {
    let machine = ManualMachine::at(1_790_000_000 * SECOND);
    let store = TestStore::new(Bounds::default());
    let server = InProcess::serve(store.start_by(clock(&machine)));
    let client = server.client();
    let endpoint = server.endpoint.clone();
    server.runtime.block_on(async {
        let cpu = vec![Amount {
            resource: "compute.cpu".into(),
            amount: 1,
        }];
        let reserve = ReserveRequest {
            subject: "tenants/a".into(),
            amounts: cpu.clone(),
            hold_id: "h".into(),
            ..ReserveRequest::default()
        };
        client.reserve(reserve).await.unwrap();
        let hold = || async {
            let request = GetHoldRequest {
                subject: "tenants/a".into(),
                hold_id: "h".into(),
            };
            client
                .get_hold(request)
                .await
                .unwrap()
                .hold
                .unwrap()
                .state()
        };
        until(&endpoint, ServingStatus::Serving).await;

        // A reading from next year: nothing expires, one health service says so, everything else goes on.
        machine.step(YEAR);
        machine.pass(SECOND);
        until(&endpoint, ServingStatus::NotServing).await;
        assert_eq!(hold().await, HoldState::Live);
        for service in ["", "quota.v1.ConsumeService", "quota.v1.CheckService"] {
            assert_eq!(
                health(&endpoint, service).await,
                ServingStatus::Serving,
                "{service}"
            );
        }
        let info = client
            .get_server_info(GetServerInfoRequest {})
            .await
            .unwrap();
        let state = info.clock.unwrap();
        assert!(state.suspect);
        assert_eq!(state.offset.unwrap().seconds, YEAR / SECOND);
        let check = CheckRequest {
            subject: "tenants/a".into(),
            amounts: cpu.clone(),
            ..CheckRequest::default()
        };
        assert_eq!(
            client.check(check).await.unwrap().decision(),
            Decision::Granted
        );

        // It was wrong and comes right by itself.
        machine.step(-YEAR);
        machine.pass(SECOND);
        until(&endpoint, ServingStatus::Serving).await;
        assert_eq!(hold().await, HoldState::Live);

        // It is right: an operator says so, and what was due in between is over.
        machine.step(YEAR);
        machine.pass(SECOND);
        until(&endpoint, ServingStatus::NotServing).await;
        let accept = AcceptClockRequest {
            operation_id: "accept-1".into(),
        };
        let accepted = client.accept_clock(accept).await.unwrap();
        assert!(accepted.previous.unwrap().suspect);
        assert!(!accepted.clock.unwrap().suspect);
        until(&endpoint, ServingStatus::Serving).await;
        assert_eq!(hold().await, HoldState::Expired);
        // A retry whose age reaches over the jump may have been forgotten: it is not charged again.
        let request = ReserveRequest {
            subject: "tenants/a".into(),
            amounts: cpu.clone(),
            hold_id: "h2".into(),
            operation_id: "lost".into(),
            operation_age: Some(quota_client::ProtoDuration {
                seconds: 5,
                nanos: 0,
            }),
            ..ReserveRequest::default()
        };
        let error = client.reserve(request).await.unwrap_err();
        assert_eq!(error.reason, Some(ErrorReason::OutcomeForgotten));

        // A year back, accepted: the server's clock waits and never goes back.
        let before = client
            .get_server_info(GetServerInfoRequest {})
            .await
            .unwrap()
            .clock
            .unwrap();
        machine.step(-YEAR);
        machine.pass(SECOND);
        until(&endpoint, ServingStatus::NotServing).await;
        let accepted = client
            .accept_clock(AcceptClockRequest::default())
            .await
            .unwrap();
        let after = accepted.clock.unwrap();
        assert!(after.waiting && !after.suspect);
        assert!(after.now.unwrap().seconds >= before.now.unwrap().seconds);
        until(&endpoint, ServingStatus::Serving).await;
    });
}
