//! The server as its operator meets it: where it refuses to start and what it says, how it stops, health,
//! the order of system calls.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use quota_client::v1::{Amount, ConsumeRequest, GetUsageRequest};
use quota_proto::v1::consume_service_client::ConsumeServiceClient;
use quota_tests::process::{Server, client, quotactl, refused};
use rustix::process::Signal;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn consume(subject: &str, amount: i64) -> ConsumeRequest {
    ConsumeRequest {
        subject: subject.into(),
        amounts: vec![Amount {
            resource: "compute.cpu".into(),
            amount,
        }],
        ..ConsumeRequest::default()
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_directory() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let (code, said) = refused(directory.path(), &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("in use by another server"), "{said}");
    server
        .client()
        .consume(consume("tenants/a", 1))
        .await
        .unwrap();
}

#[test]
fn a_foreign_directory() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.tex"), "x").unwrap();
    let (code, said) = refused(directory.path(), &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("is not empty and is no data directory"),
        "{said}"
    );
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        1,
        "nothing was left"
    );
}

#[test]
fn a_directory_that_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let (code, said) = refused(&file, &[]);
    assert_eq!(code, Some(3), "{said}");
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may write everywhere, so a read-only directory cannot be shown");
        return;
    }
    let locked = directory.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
    let (code, said) = refused(&locked, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("cannot be used"), "{said}");
}

#[test]
fn a_newer_format() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    Server::start(&data).kill();
    let identity = data.join("STORE");
    let text = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, text.replacen(" 1 ", " 9 ", 1)).unwrap();
    let (code, said) = refused(&data, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("format 9"), "{said}");
}

#[test]
fn damage_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let endpoint = server.endpoint.clone();
    for number in 0..20 {
        let amount = format!("compute.cpu={}", number + 1);
        let done = quotactl(&endpoint, &["consume", "tenants/a", &amount]);
        assert!(done.status.success());
    }
    assert_eq!(server.terminate(), Some(0));
    let segment = data.join("journal/0000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    // More than the padding between two batches.
    bytes[4996..5012].iter_mut().for_each(|byte| *byte ^= 0x10);
    std::fs::write(&segment, bytes).unwrap();
    let (code, said) = refused(&data, &[]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("0000000001.seg is damaged at byte"), "{said}");
}

#[test]
fn rows_that_are_lost_are_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let done = quotactl(&server.endpoint, &["consume", "tenants/a", "compute.cpu=3"]);
    assert!(done.status.success());
    assert_eq!(server.terminate(), Some(0));
    std::fs::remove_dir_all(data.join("rows")).unwrap();
    let server = Server::start(&data);
    let shown = quotactl(
        &server.endpoint,
        &["usage", "tenants/a", "--output", "json"],
    );
    assert!(String::from_utf8_lossy(&shown.stdout).contains("\"used\": 3"));
}

#[test]
fn every_wrong_setting_is_reported_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("quota.toml");
    std::fs::write(&file, "lisen = 'x'\ngroup_max = 'many'\n").unwrap();
    let path = file.to_string_lossy();
    let (code, said) = refused(&directory.path().join("data"), &["--config", &path]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("lisen") && said.contains("group_max"),
        "{said}"
    );
    let (code, said) = refused(directory.path(), &["--listen", "0.0.0.0:0"]);
    // The last --listen wins over the first only where it is given once.
    assert_eq!(code, Some(2), "{said}");
}

/// SIGTERM: what is held is answered and flushed, and the exit code is 0.
#[tokio::test]
async fn terminated_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let workers: Vec<_> = (0..16)
        .map(|worker| {
            let client = client(&server.endpoint);
            tokio::spawn(async move {
                let subject = format!("tenants/t/users/u{worker}");
                let mut granted = 0;
                loop {
                    match client.consume(consume(&subject, 1)).await {
                        Ok(_) => granted += 1,
                        Err(error) => return (granted, error),
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let code = tokio::task::spawn_blocking(|| server.terminate())
        .await
        .unwrap();
    assert_eq!(code, Some(0));
    let mut granted = 0;
    for worker in workers {
        let (count, error) = worker.await.unwrap();
        granted += count;
        assert!(error.is_lost(), "{error:?}");
    }
    let server = Server::start(&data);
    let request = GetUsageRequest {
        subject: "system".into(),
        ..GetUsageRequest::default()
    };
    let usage = server
        .client()
        .get_usage(request)
        .await
        .unwrap()
        .usage
        .unwrap();
    let used = usage.resources[0].used;
    // A call may have been decided whose answer met a closed connection.
    assert!(
        (granted..=granted + 16).contains(&used),
        "{granted} answered, {used} used"
    );
}

#[tokio::test]
async fn health_per_service() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let channel = tonic::transport::Endpoint::from_shared(server.endpoint.clone()).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    for service in [
        "",
        "quota.v1.CheckService",
        "quota.v1.ConsumeService",
        "quota.v1.AdminService",
    ] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let mut status = 0;
        for _ in 0..50 {
            if let Ok(answer) = health.check(request.clone()).await {
                status = answer.into_inner().status;
            }
            if status == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(status, 1, "{service:?}");
    }
}

/// A deadline that has passed drops a command before it is decided, never after.
#[tokio::test]
async fn a_stopped_server_and_deadlines() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let client = server.client();
    client.consume(consume("tenants/a", 1)).await.unwrap();
    let mut service = ConsumeServiceClient::connect(server.endpoint.clone())
        .await
        .unwrap();
    server.signal(Signal::STOP);
    let mut late = tonic::Request::new(consume("tenants/a", 1));
    late.set_timeout(Duration::from_millis(100));
    let lost = service.consume(late).await.unwrap_err();
    assert!(
        matches!(
            lost.code(),
            tonic::Code::Cancelled | tonic::Code::DeadlineExceeded
        ),
        "{lost:?}"
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.signal(Signal::CONT);
    client.consume(consume("tenants/a", 1)).await.unwrap();
}

/// One acknowledged Consume: write, fdatasync of the same file returned, then the reply.
#[tokio::test]
async fn the_order_of_system_calls() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let client = server.client();
    client.consume(consume("tenants/a", 1)).await.unwrap();
    let trace = directory.path().join("trace");
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-e",
            "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg",
            "-o",
        ])
        .arg(&trace)
        .args(["-p", &server.pid().to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let marker = "allocation-that-is-looked-for-in-the-trace";
    let mut attached = false;
    for attempt in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let request = ConsumeRequest {
            allocation_id: format!("{marker}-{attempt}"),
            ..consume("tenants/a", 1)
        };
        client.consume(request).await.unwrap();
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        if text.matches("fdatasync(").count() >= 3 {
            attached = true;
            break;
        }
    }
    assert!(
        attached || strace.try_wait().unwrap().is_some(),
        "strace did not attach"
    );
    let pid = rustix::process::Pid::from_raw(i32::try_from(strace.id()).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, Signal::INT);
    strace.wait().unwrap();
    let text = std::fs::read_to_string(&trace).unwrap_or_default();
    if !text.contains("fdatasync(") {
        println!("skipped: strace may not attach here");
        return;
    }
    let lines: Vec<&str> = text.lines().collect();
    let write = lines
        .iter()
        .position(|line| line.contains("pwrite64(") && line.contains("QFRM"))
        .expect("a frame is written");
    let file = lines[write]
        .split("pwrite64(")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let writer = lines[write].split_whitespace().next().unwrap();
    let synced = lines
        .iter()
        .skip(write)
        .position(|line| {
            line.starts_with(writer)
                && ((line.contains(&format!("fdatasync({file})")) && line.contains("= 0"))
                    || line.contains("fdatasync resumed"))
        })
        .map(|after| write + after)
        .expect("the same file is synced");
    let replied = |line: &&str| {
        !line.starts_with(writer)
            && ["write(", "writev(", "sendto(", "sendmsg("].iter().any(|call| line.contains(call))
            // The runtime's own wake-ups are eight bytes of a counter; the line may be of the call's first half.
            && !line.contains("\"\\1\\0\\0\\0\\0\\0\\0\\0\", 8")
    };
    let reply = lines
        .iter()
        .skip(write)
        .position(replied)
        .map(|after| write + after);
    let reply = reply.expect("there is a reply");
    for line in &lines[write..=reply] {
        println!("{}", line.chars().take(140).collect::<String>());
    }
    assert!(
        write < synced && synced < reply,
        "written {write}, synced {synced}, replied {reply}"
    );
}
