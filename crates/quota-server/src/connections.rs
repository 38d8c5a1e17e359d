//! Connections, counted: beyond the bound a new one is closed at once, so that a caller that opens too many
//! takes nothing from those that are there. They are let in by one task and served by others, on threads of their own
//! ([`crate::workers`]).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

/// Bytes with which every HTTP/2 connection begins: the preface and the head of a SETTINGS frame.
const PREFACE_BYTES: usize = 24 + 9;
/// Longest wait for them: a connection that says nothing must not keep a place.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Files that are kept for the journal, the rows and the runtime: connections must not take the last ones.
const FILES_RESERVED: u64 = 128;
/// Wait after the system could not accept, which a new try at once would not change.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// As many of `wanted` connections as this process may have files for. It takes as many files as it is allowed
/// to: the usual soft limit of 1,024 is for programs that use `select`.
pub fn that_fit(wanted: usize) -> usize {
    let needed = u64::try_from(wanted)
        .unwrap_or(u64::MAX)
        .saturating_add(FILES_RESERVED);
    let limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let mut files = limit.current.unwrap_or(u64::MAX);
    if files < raised {
        let more = Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, more) {
            Ok(()) => files = raised,
            Err(error) => debug!(%error, "the limit of open files stays"),
        }
    }
    let reserved = FILES_RESERVED.min(files / 2);
    let fit = usize::try_from(files.saturating_sub(reserved)).unwrap_or(usize::MAX);
    if fit < wanted {
        warn!(
            files,
            wanted, fit, "connections_max is more than the limit of open files has room for"
        );
    }
    wanted.min(fit)
}

/// The connections that are let in.
pub struct Connections {
    listener: TcpListener,
    free: Arc<Semaphore>,
    most: usize,
    full: bool,
    open: Gauge,
    refused: Counter,
    /// After an accept that failed.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Connections {
    /// Lets in at most `most` at a time.
    pub fn new(listener: TcpListener, most: usize, open: Gauge, refused: Counter) -> Self {
        Self {
            listener,
            free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            most,
            full: false,
            open,
            refused,
            pause: None,
        }
    }
}

/// Whether it was the one connection that failed, and not the system.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

impl Stream for Connections {
    type Item = LetIn;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let stream = match ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) => stream,
                Err(error) if is_of_connection(&error) => continue,
                Err(error) => {
                    warn!(%error, "connections cannot be accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                    continue;
                }
            };
            match self.free.clone().try_acquire_owned() {
                Ok(permit) => {
                    self.full = false;
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "a connection without TCP_NODELAY");
                    }
                    // It belongs to the runtime that serves it.
                    let Ok(stream) = stream.into_std() else {
                        continue;
                    };
                    return Poll::Ready(Some(LetIn {
                        stream,
                        place: Place::take(permit, &self.open),
                    }));
                }
                Err(_) => {
                    self.refused.inc();
                    if !self.full {
                        let most = self.most;
                        warn!(
                            most,
                            "connections_max is reached; new connections are closed"
                        );
                    }
                    self.full = true;
                }
            }
        }
    }
}

/// A connection that was let in and that nobody serves yet.
pub struct LetIn {
    stream: std::net::TcpStream,
    place: Place,
}

impl LetIn {
    /// Counts it, while it lasts, among those that a thread has.
    pub fn count_in(&mut self, of_thread: &Arc<AtomicUsize>) {
        of_thread.fetch_add(1, Ordering::Relaxed);
        self.place.of_thread = Some(of_thread.clone());
    }

    /// The connection, in the runtime that serves it.
    pub fn serve(self) -> io::Result<Connection> {
        Ok(Connection {
            stream: TcpStream::from_std(self.stream)?,
            silent: Some(Box::pin(tokio::time::sleep(PREFACE_TIMEOUT))),
            missing: PREFACE_BYTES,
            _place: self.place,
        })
    }
}

/// A connection that gives its place back when it ends.
pub struct Connection {
    stream: TcpStream,
    /// Until the preface has come: keep-alive begins only after it.
    silent: Option<Pin<Box<Sleep>>>,
    /// Bytes of the preface that have not come.
    missing: usize,
    _place: Place,
}

/// One of the places that connections take.
struct Place {
    open: Gauge,
    /// How many the thread has that serves it.
    of_thread: Option<Arc<AtomicUsize>>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(permit: OwnedSemaphorePermit, open: &Gauge) -> Self {
        open.inc();
        Self {
            open: open.clone(),
            of_thread: None,
            _permit: permit,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
        if let Some(of_thread) = &self.of_thread {
            of_thread.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(silent) = &mut self.silent
            && silent.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let come = buffer.filled().len().saturating_sub(before);
        self.missing = self.missing.saturating_sub(come);
        if self.missing == 0 {
            self.silent = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
