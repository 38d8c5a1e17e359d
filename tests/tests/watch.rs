//! WatchService on the real binary: each event once and in order, whatever happens to server and watcher.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use quota_client::v1::event::Detail;
use quota_client::v1::watch_service_client::WatchServiceClient;
use quota_client::v1::{
    Amount, BatchItem, BatchRequest, ConsumeRequest, ErrorReason, Event, EventKind,
    ListEventsRequest, ReleaseRequest, Severity, WatchRequest, batch_item,
};
use quota_client::{Client, Options};
use quota_tests::process::{Launch, Server, times};
use tonic_types::StatusExt as _;

const KILLS: usize = 10;
const CLIENTS: usize = 4;
/// Operations of the whole test, unless QUOTA_TEST_OPERATIONS says.
const OPERATIONS: usize = 4_000;
/// Most operations in one batch.
const BATCH_MAX: usize = 1000;
/// Least batches of a worker.
const BATCHES: usize = 20;

fn patient(endpoint: &str) -> Client {
    let options = Options {
        endpoint: endpoint.to_owned(),
        timeout: Duration::from_secs(5),
        retry_for: Duration::from_secs(60),
        ..Options::default()
    };
    Client::new(options).unwrap()
}

/// One pair of operations: what comes goes.
fn pair(id: &str, number: usize) -> [BatchItem; 2] {
    let subject = format!("tenants/t{}/users/u{}", number % 3, number % 7);
    let consume = ConsumeRequest {
        subject: subject.clone(),
        amounts: vec![Amount {
            resource: "compute.cpu".into(),
            amount: 3,
        }],
        allocation_id: id.to_owned(),
        operation_id: format!("{id}-in"),
        ..ConsumeRequest::default()
    };
    let release = ReleaseRequest {
        subject,
        allocation_id: id.to_owned(),
        operation_id: format!("{id}-out"),
        ..ReleaseRequest::default()
    };
    [
        batch_item::Item::Consume(consume),
        batch_item::Item::Release(release),
    ]
    .map(|item| BatchItem { item: Some(item) })
}

/// Asks for so many pairs, each until it is answered; killing goes on meanwhile.
async fn work(client: Client, worker: usize, pairs: usize, done: Arc<AtomicUsize>) {
    let batch = (pairs / BATCHES).clamp(1, BATCH_MAX / 2);
    let mut number = 0;
    while number < pairs {
        let most = (pairs - number).min(batch);
        let items = (number..number + most)
            .flat_map(|number| pair(&format!("w{worker}-{number}"), number))
            .collect();
        let answer = client.batch(BatchRequest { items }).await.unwrap();
        assert_eq!(answer.results.len(), most * 2);
        number += most;
        done.fetch_add(most * 2, Ordering::SeqCst);
    }
}

/// What a watcher heard.
#[derive(Default)]
struct Heard {
    next: u64,
    /// How often the allocation of each operation came or went.
    operations: BTreeMap<String, usize>,
    kinds: BTreeMap<EventKind, usize>,
}

impl Heard {
    fn hear(&mut self, event: &Event) {
        assert_eq!(
            event.sequence, self.next,
            "each once, in order, none left out"
        );
        self.next += 1;
        let kind = event.kind();
        *self.kinds.entry(kind).or_default() += 1;
        if matches!(
            kind,
            EventKind::AllocationCreated | EventKind::AllocationReleased
        ) {
            let operation = event.operation_id.clone();
            *self.operations.entry(operation).or_default() += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_once_through_kills() {
    let operations = times("QUOTA_TEST_OPERATIONS", OPERATIONS);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let listen = format!("127.0.0.1:{port}");
    let start = || Server::start_with(&data, &["--listen", &listen]);
    let mut server = start();
    let endpoint = server.endpoint.clone();
    let over = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (over, mut watch) = (
            over.clone(),
            patient(&endpoint).watch(WatchRequest {
                from_sequence: Some(1),
                ..WatchRequest::default()
            }),
        );
        tokio::spawn(async move {
            let mut heard = Heard {
                next: 1,
                ..Heard::default()
            };
            loop {
                let ended = over.load(Ordering::SeqCst);
                let response =
                    match tokio::time::timeout(Duration::from_secs(3), watch.next()).await {
                        Ok(response) => response.unwrap(),
                        // Nothing more is to come.
                        Err(_) if ended => return heard,
                        Err(_) => continue,
                    };
                response.events.iter().for_each(|event| heard.hear(event));
                assert_eq!(response.next_sequence, heard.next);
            }
        })
    };
    let done = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..CLIENTS)
        .map(|worker| {
            let pairs = operations / CLIENTS / 2;
            tokio::spawn(work(patient(&endpoint), worker, pairs, done.clone()))
        })
        .collect();
    for kill in 1..=KILLS {
        // Spread over the work, with some of it under way.
        while done.load(Ordering::SeqCst) < operations * kill / (KILLS + 2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.kill();
        server = start();
    }
    for worker in workers {
        worker.await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    let heard = watcher.await.unwrap();
    assert_eq!(heard.operations.len(), operations);
    assert!(heard.operations.values().all(|times| *times == 1));
    assert_eq!(heard.kinds.get(&EventKind::Recovered), Some(&KILLS));
    assert!(heard.kinds.contains_key(&EventKind::UsageUpdated));
    println!(
        "{operations} operations, {KILLS} kills: {} events, each once: {:?}",
        heard.next - 1,
        heard.kinds
    );
    // What is rare stands on a later page, or on one of many that are empty.
    let mut request = ListEventsRequest {
        operation_id: "w0-0-in".into(),
        ..ListEventsRequest::default()
    };
    let client = patient(&endpoint);
    let mut kinds: Vec<EventKind> = Vec::new();
    loop {
        let page = client.list_events(request.clone()).await.unwrap();
        kinds.extend(page.events.iter().map(Event::kind));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    // It may also have brought subjects into being.
    kinds.retain(|kind| *kind != EventKind::SubjectCreated);
    assert_eq!(kinds, [EventKind::AllocationCreated]);
}

/// Whose usage changed just before a kill is told of after the start, though nothing changes it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_told_over_a_kill() {
    const KILLS: i64 = 3;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    for number in 1..=KILLS {
        let consume = ConsumeRequest {
            subject: format!("tenants/t{number}"),
            amounts: vec![Amount {
                resource: "compute.cpu".into(),
                amount: number,
            }],
            ..ConsumeRequest::default()
        };
        let client = patient(&server.endpoint);
        client.consume(consume).await.unwrap();
        server.kill();
        server = Server::start(&data);
    }
    let mut watch = patient(&server.endpoint).watch(WatchRequest {
        from_sequence: Some(1),
        kinds: vec![EventKind::UsageUpdated.into()],
        ..WatchRequest::default()
    });
    let due: BTreeMap<String, i64> = (1..=KILLS)
        .map(|number| (format!("tenants/t{number}"), number))
        .chain([("system".to_owned(), KILLS * (KILLS + 1) / 2)])
        .collect();
    let mut told = BTreeMap::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while told != due {
        let next = tokio::time::timeout_at(deadline, watch.next()).await;
        let next = next.unwrap_or_else(|_| panic!("only {told:?} was told"));
        for event in next.unwrap().events {
            let Some(Detail::Usage(usage)) = event.detail else {
                panic!("{event:?} says no usage");
            };
            let used = usage.accounts.iter().map(|account| account.used).sum();
            told.insert(event.subject, used);
        }
    }
}

/// A watcher that takes nothing is cut off and told where to go on; nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_is_cut_off_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch {
        settings: &[("QUOTA_WATCH_STALL_MAX", "500ms")],
        ..Launch::default()
    };
    let server = Server::launch(&directory.path().join("data"), &launch).unwrap();
    let channel = tonic::transport::Endpoint::from_shared(server.endpoint.clone())
        .unwrap()
        .initial_stream_window_size(65_535)
        .connect()
        .await
        .unwrap();
    let request = WatchRequest {
        from_sequence: Some(1),
        ..WatchRequest::default()
    };
    let opened = WatchServiceClient::new(channel).watch(request).await;
    let mut stream = opened.unwrap().into_inner();
    // Far more than the windows of a connection and what waits for it.
    let client = patient(&server.endpoint);
    let done = Arc::new(AtomicUsize::new(0));
    work(client.clone(), 0, 3_000, done.clone()).await;
    assert_eq!(done.load(Ordering::SeqCst), 6_000);
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let mut heard = Heard {
        next: 1,
        ..Heard::default()
    };
    let cut = loop {
        match stream.message().await {
            Ok(Some(response)) => {
                response.events.iter().for_each(|event| heard.hear(event));
                assert!(heard.operations.len() < 6_000, "it was not slow");
            }
            Ok(None) => panic!("it was not cut off"),
            Err(status) => break status,
        }
    };
    assert_eq!(cut.code(), tonic::Code::ResourceExhausted, "{cut:?}");
    let details = cut.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "WATCHER_TOO_SLOW");
    assert_eq!(info.metadata["next_sequence"], heard.next.to_string());

    let mut watch = client.watch(WatchRequest {
        from_sequence: Some(heard.next),
        ..WatchRequest::default()
    });
    while heard.operations.len() < 6_000 {
        let response = watch.next().await.unwrap();
        response.events.iter().for_each(|event| heard.hear(event));
    }
}

async fn refusal(client: &Client, request: WatchRequest) -> quota_client::Error {
    client
        .without_retries()
        .watch(request)
        .next()
        .await
        .unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_and_bad_requests() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch {
        settings: &[("QUOTA_WATCHERS_MAX", "1")],
        ..Launch::default()
    };
    let server = Server::launch(&directory.path().join("data"), &launch).unwrap();
    let client = patient(&server.endpoint);
    work(client.clone(), 0, 20, Arc::default()).await;

    let bad = WatchRequest {
        from_sequence: Some(0),
        subject_prefix: "Tenants".into(),
        kinds: vec![3, 0, 999],
        severity_min: 9,
    };
    let error = refusal(&client, bad).await;
    let mut fields: Vec<&str> = error.violations.iter().map(|v| v.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "from_sequence",
            "kinds[1]",
            "kinds[2]",
            "severity_min",
            "subject_prefix"
        ]
    );
    let ahead = WatchRequest {
        from_sequence: Some(1_000_000),
        ..WatchRequest::default()
    };
    let error = refusal(&client, ahead).await;
    assert_eq!(error.reason, Some(ErrorReason::InvalidFields), "{error:?}");

    // One place is all there is, and it is free again when its watcher goes.
    let mut one = client.watch(WatchRequest::default());
    one.next().await.unwrap();
    let error = refusal(&client, WatchRequest::default()).await;
    assert_eq!(error.reason, Some(ErrorReason::Overloaded), "{error:?}");
    drop(one);
    let wanted = WatchRequest {
        from_sequence: Some(1),
        subject_prefix: "tenants/t1".into(),
        kinds: vec![
            EventKind::AllocationCreated.into(),
            EventKind::SubjectCreated.into(),
        ],
        severity_min: Severity::Info.into(),
    };
    let mut watch = loop {
        let mut watch = client.without_retries().watch(wanted.clone());
        match watch.next().await {
            Ok(response) => {
                check_filtered(&response.events);
                break watch;
            }
            Err(error) => assert_eq!(error.reason, Some(ErrorReason::Overloaded), "{error:?}"),
        }
    };
    // What is left out moves the place all the same: a heartbeat says where it is.
    let response = watch.next().await.unwrap();
    assert!(response.events.is_empty(), "{response:?}");
    assert!(response.next_sequence > 40, "{response:?}");
}

fn check_filtered(events: &[Event]) {
    let kinds = |kind| events.iter().filter(|event| event.kind() == kind).count();
    // Of 20 pairs those of t1, and the subjects t1 and its users.
    assert_eq!(kinds(EventKind::AllocationCreated), 7, "{events:?}");
    assert_eq!(kinds(EventKind::SubjectCreated), 8, "{events:?}");
    assert_eq!(events.len(), 15);
    assert!(events.iter().all(|e| e.subject.starts_with("tenants/t1")));
}

/// What was listed page by page is what was watched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_what_was_watched() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let client = patient(&server.endpoint);
    work(client.clone(), 0, 200, Arc::default()).await;
    let mut heard: Vec<Event> = Vec::new();
    let mut watch = client.watch(WatchRequest {
        from_sequence: Some(1),
        ..WatchRequest::default()
    });
    while heard.iter().all(|event| event.operation_id != "w0-199-out") {
        heard.extend(watch.next().await.unwrap().events);
    }
    let mut request = ListEventsRequest {
        page_size: 7,
        ..ListEventsRequest::default()
    };
    let mut listed: Vec<Event> = Vec::new();
    while listed.len() < heard.len() {
        let page = client.list_events(request.clone()).await.unwrap();
        assert!(page.events.len() <= 7);
        assert_eq!(page.first_sequence, 1);
        listed.extend(page.events);
        request.page_token = page.next_page_token;
    }
    listed.truncate(heard.len());
    assert_eq!(listed, heard);

    // A token that somebody wrote over names its field, and leads no watcher astray.
    let first = ListEventsRequest {
        page_size: 7,
        ..ListEventsRequest::default()
    };
    let token = client.list_events(first.clone()).await.unwrap();
    let token = token.next_page_token;
    let newline = (0..token.len()).step_by(2);
    let newline = newline.into_iter().find(|at| &token[*at..*at + 2] == "0a");
    let made_for = &token[..newline.unwrap() + 2];
    for place in ["18446744073709551614.1", "1", "x.y"] {
        let place: String = place.bytes().map(|byte| format!("{byte:02x}")).collect();
        let request = ListEventsRequest {
            page_token: format!("{made_for}{place}"),
            ..first.clone()
        };
        let error = client.list_events(request).await.unwrap_err();
        let named: Vec<&str> = error.violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(named, ["page_token"], "{error:?}");
    }

    // By time: from the instant of an event on, and up to one.
    let at = |index: usize| heard[index].time;
    let middle = heard.len() / 2;
    let request = ListEventsRequest {
        start_time: at(middle),
        end_time: at(heard.len() - 1),
        page_size: 1000,
        ..ListEventsRequest::default()
    };
    let page = client.list_events(request).await.unwrap();
    let key = |time: Option<quota_client::Timestamp>| time.map(|t| (t.seconds, t.nanos));
    let due: Vec<&Event> = heard
        .iter()
        .filter(|event| key(event.time) >= key(at(middle)))
        .filter(|event| key(event.time) < key(at(heard.len() - 1)))
        .collect();
    assert_eq!(page.events.iter().collect::<Vec<_>>(), due);
}
