//! Threads that serve connections, each on a runtime of its own.
//!
//! A connection stays with its thread, so that nothing of a call is handed from core to core. A runtime of one
//! thread also runs tasks in the order in which they were woken: the calls that a group has answered are all
//! done before their connection writes, once, what there is to write. A runtime of several threads runs the task that
//! was woken last first, and writes every answer for itself.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt};
use tracing::{debug, error};

use crate::connections::{Connection, Connections, LetIn};

/// Connections that wait for their thread to begin with them; more wait to be let in.
const WAITING_MAX: usize = 256;

/// The threads. Dropped, they end at once, with whatever they serve.
pub struct Workers {
    shares: Vec<Share>,
    threads: Vec<JoinHandle<()>>,
    /// Ends what is served when it is dropped.
    serving: watch::Sender<()>,
    /// Ends when the last thread does.
    ended: mpsc::Receiver<()>,
}

/// A thread, as seen by who hands out connections.
struct Share {
    connections: mpsc::Sender<LetIn>,
    /// How many it has.
    open: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts a thread for each processor, each of which runs what `serve` makes of its connections until that
    /// ends.
    pub fn start<F>(serve: impl Fn(Incoming) -> F + Clone + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = ()>,
    {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let (serving, served) = watch::channel(());
        let (at_work, ended) = mpsc::channel(1);
        let (mut shares, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (connections, given) = mpsc::channel(WAITING_MAX);
            let (serve, mut served, at_work) = (serve.clone(), served.clone(), at_work.clone());
            let work = move || {
                let _at_work = at_work;
                runtime.block_on(async move {
                    tokio::select! {
                        () = serve(Incoming(given)) => {}
                        // There is never a change, only the end.
                        _ = served.changed() => {}
                    }
                });
                // Calls that wait on something else are not waited for.
                runtime.shutdown_background();
            };
            let name = format!("quota-worker-{number}");
            threads.push(std::thread::Builder::new().name(name).spawn(work)?);
            let open = Arc::default();
            shares.push(Share { connections, open });
        }
        Ok(Self {
            shares,
            threads,
            serving,
            ended,
        })
    }

    /// Hands connections to whichever thread has fewest, for as long as this is polled. Ends only if a thread did.
    pub async fn share(&self, mut connections: Connections) -> io::Error {
        while let Some(mut let_in) = connections.next().await {
            let open = |share: &&Share| share.open.load(Ordering::Relaxed);
            let Some(share) = self.shares.iter().min_by_key(open) else {
                break;
            };
            let_in.count_in(&share.open);
            if share.connections.send(let_in).await.is_err() {
                break;
            }
        }
        io::Error::other("a thread that serves connections has ended")
    }

    /// Until nothing is served any more.
    pub async fn ended(&mut self) {
        // Nothing is ever sent.
        self.ended.recv().await;
    }

    /// Ends what is still served, and waits for the threads.
    pub async fn end(self) {
        let Self {
            shares,
            threads,
            serving,
            ..
        } = self;
        drop((shares, serving));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    error!("a thread that serves connections has panicked");
                }
            }
        });
        let _ = joined.await;
    }
}

/// The connections of a thread.
pub struct Incoming(mpsc::Receiver<LetIn>);

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.0.poll_recv(context)).map(LetIn::serve) {
                Some(Err(error)) => debug!(%error, "a connection cannot be served"),
                served => return Poll::Ready(served),
            }
        }
    }
}
