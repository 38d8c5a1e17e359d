//! Callers that misbehave, on the real binary: they vanish within a call, say nothing, never read, or send what
//! is no call. Each of them harms itself at most: the server goes on for everyone else, within its bounds.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use prost::Message;
use quota_client::Client;
use quota_client::v1::{CheckRequest, ListAllocationsRequest};
use quota_tests::book::{Book, check, request};
use quota_tests::http2::{self, Raw, frame};
use quota_tests::process::{Launch, Server, health, times, verify_store};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{Body as _, Service, http};
use tonic::transport::{Channel, Endpoint};

const CONSUME: &str = "/quota.v1.ConsumeService/Consume";
const CHECK: &str = "/quota.v1.CheckService/Check";
const LIST: &str = "/quota.v1.AdminService/ListAllocations";

/// A server whose stderr is kept.
struct Heard {
    server: Server,
    data: PathBuf,
    stderr: PathBuf,
    /// Where both are; dropped last.
    directory: TempDir,
}

impl Heard {
    /// Starts one on a new directory, with these settings and at most so many files.
    fn start(settings: &[(&str, &str)], files: Option<u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (data, stderr) = (
            directory.path().join("data"),
            directory.path().join("stderr"),
        );
        let launch = Launch {
            settings,
            files,
            stderr: Some(&stderr),
            ..Launch::default()
        };
        let server = Server::launch(&data, &launch).unwrap();
        Self {
            server,
            data,
            stderr,
            directory,
        }
    }
}

/// The server answers everyone else: a Check and a charge.
async fn goes_on(client: &Client, book: &mut Book, name: &str) {
    check(client).await;
    book.ask(client, name).await.unwrap();
}

fn says_no_panic(stderr: &Path) {
    let said = std::fs::read_to_string(stderr).unwrap();
    assert!(!said.contains("panicked"), "{said}");
}

/// Callers that close, or reset, the connection at any moment of a call: each operation is there wholly or not
/// at all, its retry settles it, and no call is under way for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_vanish() {
    let Heard {
        server,
        data,
        stderr,
        directory: _directory,
    } = Heard::start(&[], None);
    let client = server.client();
    let mut book = Book::default();
    let mut random = fastrand::Rng::with_seed(8);
    for number in 0..200 {
        let name = format!("v-{number}");
        let mut raw = Raw::connect(&server.endpoint);
        let call = raw.number();
        let body = http2::message(&request(&name));
        let mut bytes = frame(
            http2::HEADERS,
            http2::END_HEADERS,
            call,
            &http2::headers(CONSUME),
        );
        let headers = bytes.len();
        bytes.extend(frame(http2::DATA, http2::END_STREAM, call, &body));
        let is_whole = number % 4 != 0;
        if !is_whole {
            // Half a call: within its headers or its message.
            bytes.truncate(random.usize(headers / 2..bytes.len()));
        }
        raw.send(&bytes).unwrap();
        if is_whole {
            book.is_open(&name);
        }
        if number % 8 == 1 {
            raw.send(&frame(http2::RST_STREAM, 0, call, &8_u32.to_be_bytes()))
                .unwrap();
        }
        // Between at once and after the answer.
        tokio::time::sleep(Duration::from_micros(random.u64(..6_000))).await;
        match number % 3 {
            0 => drop(raw),
            _ => raw.reset(),
        }
        if number % 20 == 0 {
            goes_on(&client, &mut book, &format!("else-{number}")).await;
        }
    }
    book.agrees(&client).await;
    let open = book.open();
    let applied = book.settle(&client).await;
    eprintln!("{open} calls without an answer, {applied} of them applied");
    assert!(applied > 0 && applied <= open);
    book.agrees(&client).await;

    // Nothing is under way any more: it stops as soon as it is told to.
    let began = Instant::now();
    let code = tokio::task::spawn_blocking(|| server.terminate());
    assert_eq!(code.await.unwrap(), Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let server = Server::start(&data);
    book.agrees(&server.client()).await;
    server.kill();
    verify_store(&data);
    says_no_panic(&stderr);
}

/// Half-open calls do not hold up a stop either: headers came, the message never does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_calls_and_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut half = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::connect(&server.endpoint);
        let call = raw.number();
        let headers = http2::headers(CONSUME);
        raw.send(&frame(http2::HEADERS, http2::END_HEADERS, call, &headers))
            .unwrap();
        raw.send(&frame(http2::DATA, 0, call, &[0, 0, 0, 0, 40, 10]))
            .unwrap();
        half.push(raw);
    }
    let mut book = Book::default();
    goes_on(&server.client(), &mut book, "else").await;
    let began = Instant::now();
    let code = tokio::task::spawn_blocking(|| server.terminate());
    assert_eq!(code.await.unwrap(), Some(0));
    let took = began.elapsed();
    eprintln!("stopped with half-open calls after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Lets this process, and the servers that it starts, have so many files; says how many connections fit.
fn connections_that_fit(wanted: usize) -> usize {
    let spare = 500;
    let needed = u64::try_from(wanted + spare).unwrap();
    let have = getrlimit(Resource::Nofile);
    if have.current.is_some_and(|current| current < needed) {
        for maximum in [
            have.maximum.map(|maximum| maximum.max(needed)),
            have.maximum,
        ] {
            let current = maximum.map_or(needed, |maximum| maximum.min(needed));
            let limit = Rlimit {
                current: Some(current),
                maximum,
            };
            if setrlimit(Resource::Nofile, limit).is_ok() {
                break;
            }
        }
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(needed);
    let fit = wanted.min(usize::try_from(current).unwrap().saturating_sub(spare));
    if fit < wanted {
        eprintln!(
            "scaled down: {current} files are allowed, so {fit} connections and not {wanted}"
        );
    }
    fit
}

/// Ten thousand idle connections: the server goes on, its bound holds, and each takes little memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections() {
    let wanted = times("QUOTA_TEST_CONNECTIONS", 10_000);
    let most = connections_that_fit(wanted);
    let directory = tempfile::tempdir().unwrap();
    let bound = most.to_string();
    let launch = Launch {
        settings: &[("QUOTA_CONNECTIONS_MAX", &bound)],
        ..Launch::default()
    };
    let server = Server::launch(directory.path(), &launch).unwrap();
    let client = server.client();
    let mut book = Book::default();
    goes_on(&client, &mut book, "first").await;
    let before = server.resident_kib();
    let began = Instant::now();
    let mut idle = Vec::new();
    for number in 1..most {
        let mut raw = Raw::connect(&server.endpoint);
        if number % 500 == 0 {
            // Let in: its settings are answered.
            assert!(raw.read().unwrap().is_some(), "connection {number}");
            goes_on(&client, &mut book, &format!("with-{number}")).await;
        }
        idle.push(raw);
    }
    let opened = began.elapsed();
    // The last of them was let in; one more is not.
    let last = idle.last_mut().unwrap().read().unwrap();
    assert_eq!(last.unwrap().kind, http2::SETTINGS);
    let mut more = http2::tcp(&server.endpoint);
    assert!(
        matches!(more.read(&mut [0]), Ok(0) | Err(_)),
        "the bound holds"
    );
    let began = Instant::now();
    for number in 0..50 {
        goes_on(&client, &mut book, &format!("beside-{number}")).await;
    }
    let each = began.elapsed() / 50;
    let grown = server.resident_kib().saturating_sub(before);
    let idle_count = u64::try_from(idle.len()).unwrap();
    let bytes = grown * 1024 / idle_count;
    eprintln!(
        "{idle_count} idle connections in {opened:?}: {} MiB, {bytes} bytes each; a Check and a charge \
         beside them take {each:?}",
        grown / 1024
    );
    assert!(bytes < 64 << 10, "{bytes} bytes for an idle connection");
    drop(idle);
    goes_on(&client, &mut book, "afterwards").await;
    // Their places are free again.
    let mut tries = 0;
    while Raw::connect(&server.endpoint)
        .read()
        .ok()
        .flatten()
        .is_none()
    {
        tries += 1;
        assert!(tries < 500, "places are not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    book.agrees(&client).await;
}

/// Connections never take the files that the journal needs, and a flood of them does not keep a core busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_files() {
    let Heard {
        server,
        data,
        stderr,
        directory: _directory,
    } = Heard::start(&[("QUOTA_SEGMENT_BYTES", "65536")], Some(200));
    let client = server.client();
    let mut book = Book::default();
    goes_on(&client, &mut book, "first").await;
    let idle: Vec<Raw> = (0..300)
        .filter_map(|_| Raw::try_connect(&server.endpoint).ok())
        .collect();
    assert!(idle.len() > 100);
    let journal = data.join("journal");
    let segments = || std::fs::read_dir(&journal).unwrap().count();
    let before = segments();
    for number in 0..200 {
        goes_on(&client, &mut book, &format!("few-{number}")).await;
    }
    assert!(segments() > before, "new segments were made meanwhile");
    book.agrees(&client).await;
    let said = std::fs::read_to_string(&stderr).unwrap();
    assert!(said.contains("limit of open files"), "{said}");
}

/// Where the system has no file for a connection, the server waits a little, instead of trying without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepts_that_fail() {
    let Heard {
        server,
        data: _,
        stderr,
        directory: _directory,
    } = Heard::start(&[], None);
    let client = server.client();
    check(&client).await;
    let pid = Pid::from_raw(server.pid());
    let now = |files: Option<u64>| Rlimit {
        current: files,
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(pid, Resource::Nofile, now(Some(10))).unwrap();
    let waiting: Vec<_> = (0..10).map(|_| http2::tcp(&server.endpoint)).collect();
    let busy = server.cpu_ticks();
    for _ in 0..50 {
        check(&client).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let busy = server.cpu_ticks() - busy;
    let said = std::fs::read_to_string(&stderr).unwrap();
    assert!(said.contains("connections cannot be accepted"), "{said}");
    eprintln!("{busy} ticks of a processor in a second without files");
    assert!(busy < 40, "{busy} ticks of a processor");
    drop(waiting);
    prlimit(pid, Resource::Nofile, now(before.current)).unwrap();
    let mut book = Book::default();
    let late = server.client();
    late.check(CheckRequest::default()).await.unwrap_err();
    goes_on(&late, &mut book, "late").await;
}

/// Callers that send and never read: their answers wait in memory that is bounded by the calls of a connection,
/// and others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch {
        settings: &[("QUOTA_STREAMS_MAX", "64")],
        ..Launch::default()
    };
    let server = Server::launch(directory.path(), &launch).unwrap();
    let client = server.client();
    let mut book = Book::default();
    for number in 0..200 {
        book.ask(&client, &format!("row-{number}")).await.unwrap();
    }
    let list = ListAllocationsRequest {
        page_size: 1000,
        ..ListAllocationsRequest::default()
    };
    let answer = client.list_allocations(list.clone()).await.unwrap();
    let answer_kib = u64::try_from(answer.encoded_len()).unwrap() / 1024;
    let before = server.resident_kib();
    let mut slow = Vec::new();
    for number in 0..8 {
        let mut raw = Raw::narrow(&server.endpoint).await;
        raw.impatient();
        let sent = (0..300)
            .take_while(|_| raw.call(LIST, &list).is_ok())
            .count();
        assert!(sent >= 64, "connection {number}: {sent} calls");
        slow.push(raw);
        goes_on(&client, &mut book, &format!("beside-{number}")).await;
    }
    // Small calls without an end: what is beyond the bound is not kept.
    let mut raw = Raw::narrow(&server.endpoint).await;
    raw.impatient();
    let check = CheckRequest::default();
    let sent = (0..20_000)
        .take_while(|_| raw.call(CHECK, &check).is_ok())
        .count();
    slow.push(raw);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for number in 0..20 {
        goes_on(&client, &mut book, &format!("after-{number}")).await;
    }
    let grown = server.resident_kib().saturating_sub(before);
    let bound = 8 * 64 * answer_kib;
    eprintln!(
        "8 connections, 64 answers of {answer_kib} KiB each, that nobody reads, and {sent} small calls: \
         {grown} KiB"
    );
    // Rows take more in memory than on the wire.
    assert!(grown < 4 * bound + 8192, "{grown} KiB of {bound}");
    book.agrees(&client).await;
    let code = tokio::task::spawn_blocking(|| server.terminate());
    assert_eq!(code.await.unwrap(), Some(0));
}

/// Sends a body as a gRPC call; answers the status that came, wherever it stood.
async fn grpc(endpoint: &str, headers: &[(&str, &str)], body: &str) -> Result<String, String> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned()).unwrap();
    let mut channel: Channel = endpoint
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let mut request = http::Request::post(format!("http://localhost{CONSUME}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::new(body.to_owned())).unwrap();
    let ready = std::future::poll_fn(|context| channel.poll_ready(context)).await;
    ready.map_err(|error| error.to_string())?;
    let response = channel
        .call(request)
        .await
        .map_err(|error| error.to_string())?;
    if let Some(status) = response.headers().get("grpc-status") {
        return Ok(status.to_str().unwrap().to_owned());
    }
    if !response.status().is_success() {
        return Ok(format!("HTTP {}", response.status()));
    }
    let mut body = response.into_body();
    loop {
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let frame = next
            .ok_or("no trailers")?
            .map_err(|error| error.to_string())?;
        if let Ok(trailers) = frame.into_trailers() {
            return Ok(trailers["grpc-status"].to_str().unwrap().to_owned());
        }
    }
}

/// Messages that are none: each gets an error that says so, and the connection's server goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages() {
    let Heard {
        server,
        data: _,
        stderr,
        directory: _directory,
    } = Heard::start(&[], None);
    let client = server.client();
    let mut book = Book::default();
    let whole = "\0\0\0\0\u{7}\n\u{5}a/b/c";
    type Case = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
    );
    let cases: [Case; 10] = [
        (
            "a length beyond the limit",
            &[],
            "\0\u{7f}\u{7f}\u{7f}\u{7f}x",
        ),
        ("a length beyond what comes", &[], "\0\0\0\0\u{20}\n\u{5}"),
        ("half a prefix", &[], "\0\0\0"),
        ("no message", &[], ""),
        ("two messages", &[], "\0\0\0\0\0\0\0\0\0\0"),
        (
            "a compressed message",
            &[("grpc-encoding", "gzip")],
            "\u{1}\0\0\0\u{1}x",
        ),
        ("compressed, and nobody said how", &[], "\u{1}\0\0\0\u{1}x"),
        ("a flag that does not exist", &[], "\u{7}\0\0\0\u{1}x"),
        ("protobuf that ends early", &[], "\0\0\0\0\u{2}\n\u{40}"),
        ("a wrong wire type", &[], "\0\0\0\0\u{2}\u{8}\u{1}"),
    ];
    let mut statuses = BTreeMap::new();
    for (what, headers, body) in cases {
        let status = grpc(&server.endpoint, headers, body).await;
        statuses.insert(what, status);
        goes_on(&client, &mut book, &what.replace([' ', ','], "-")).await;
    }
    eprintln!("{statuses:#?}");
    for (what, status) in &statuses {
        let code = status
            .as_deref()
            .unwrap_or_else(|why| panic!("{what}: {why}"));
        // INVALID_ARGUMENT, or UNIMPLEMENTED for an encoding.
        assert!(matches!(code, "3" | "12"), "{what}: {code}");
    }
    let bad_name = grpc(&server.endpoint, &[], whole).await;
    assert_eq!(bad_name.as_deref(), Ok("3"));
    book.agrees(&client).await;
    says_no_panic(&stderr);
}

/// Bytes that are no HTTP/2, and frames that are no calls: an error or a closed connection, soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_frames() {
    let Heard {
        server,
        data: _,
        stderr,
        directory: _directory,
    } = Heard::start(&[], None);
    let client = server.client();
    let mut book = Book::default();
    let mut random = fastrand::Rng::with_seed(12);
    let mut garbage = vec![0; 4096];
    random.fill(&mut garbage);
    let request_line = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let tls = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    for (what, bytes) in [("garbage", garbage), ("http-1", request_line), ("tls", tls)] {
        let mut stream = http2::tcp(&server.endpoint);
        let _ = stream.write_all(&bytes);
        is_closed(&mut stream, what);
        goes_on(&client, &mut book, what).await;
    }
    let headers = http2::headers(CONSUME);
    let headers_of = |call| frame(http2::HEADERS, http2::END_HEADERS, call, &headers);
    let cases: [(&str, Vec<u8>); 9] = [
        (
            "a frame beyond the largest",
            frame(http2::DATA, 0, 1, &[0; 20_000]),
        ),
        ("data without a call", frame(http2::DATA, 0, 1, &[0; 10])),
        ("an even call", headers_of(2)),
        (
            "headers that cannot be decoded",
            frame(http2::HEADERS, http2::END_HEADERS, 1, &[0xff; 50]),
        ),
        (
            "a continuation of nothing",
            frame(http2::CONTINUATION, 0, 1, &headers),
        ),
        (
            "settings of a wrong size",
            frame(http2::SETTINGS, 0, 0, &[1; 5]),
        ),
        (
            "a reset of nothing",
            frame(http2::RST_STREAM, 0, 9, &[0; 4]),
        ),
        ("headers on the connection", headers_of(0)),
        (
            "headers without a path",
            frame(http2::HEADERS, 5, 1, &[0x83, 0x86]),
        ),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::connect(&server.endpoint);
        let _ = raw.send(&bytes);
        let end = raw.end(1);
        let kinds = [
            None,
            Some(http2::GOAWAY),
            Some(http2::RST_STREAM),
            Some(http2::HEADERS),
        ];
        assert!(kinds.contains(&end), "{what}: {end:?}");
        goes_on(&client, &mut book, &what.replace(' ', "-")).await;
    }
    // Headers of sixteen MiB, in as many frames as that takes.
    let before = server.resident_kib();
    let mut raw = Raw::connect(&server.endpoint);
    let mut sent = raw.send(&frame(http2::HEADERS, 0, 1, &headers));
    let mut field = Vec::new();
    http2::header(&mut field, "x-filler", &"x".repeat(16_000));
    for _ in 0..1024 {
        sent = sent.and_then(|()| raw.send(&frame(http2::CONTINUATION, 0, 1, &field)));
    }
    let end = raw.end(1);
    let grown = server.resident_kib().saturating_sub(before);
    eprintln!("16 MiB of headers: sent {sent:?}, ended by {end:?}, {grown} KiB");
    assert!(grown < 8 << 10, "{grown} KiB");
    // A header list beyond the bound, in a whole request, gets an answer and the call does not happen.
    let mut raw = Raw::connect(&server.endpoint);
    let mut large = headers.clone();
    for number in 0..30 {
        http2::header(&mut large, &format!("x-{number}"), &"y".repeat(1000));
    }
    raw.send(&frame(http2::HEADERS, 0, 1, &large[..16_000]))
        .unwrap();
    raw.send(&frame(
        http2::CONTINUATION,
        http2::END_HEADERS,
        1,
        &large[16_000..],
    ))
    .unwrap();
    let body = http2::message(&request("too-many-headers"));
    raw.send(&frame(http2::DATA, http2::END_STREAM, 1, &body))
        .unwrap();
    let end = raw.end(1);
    eprintln!("a header list beyond the bound: {end:?}");
    goes_on(&client, &mut book, "after-headers").await;
    assert!(health(&server.endpoint, "").await.is_ok());
    book.agrees(&client).await;
    says_no_panic(&stderr);
}

/// The server closes the connection, perhaps after a few words.
fn is_closed(stream: &mut TcpStream, what: &str) {
    let mut said = [0; 1024];
    loop {
        match stream.read(&mut said) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                let kind = error.kind();
                assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{what}");
                return;
            }
        }
    }
}
