//! Watching: a stream of events that goes on where it broke off.

use std::time::Duration;

use quota_proto::v1;
use quota_proto::v1::watch_service_client::WatchServiceClient;
use tonic::Streaming;

use crate::retry::Attempts;
use crate::{ANSWER_BYTES_MAX, Client, Error};

/// A server sends something at least every ten seconds; after that long without anything it is taken for lost.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Events as they happen, each once, in order, over broken connections and restarts of the server.
pub struct Watch {
    client: Client,
    request: v1::WatchRequest,
    stream: Option<Streaming<v1::WatchResponse>>,
}

impl Client {
    /// Watches what happens. Nothing is asked before the first [`Watch::next`].
    pub fn watch(&self, request: v1::WatchRequest) -> Watch {
        Watch {
            client: self.clone(),
            request,
            stream: None,
        }
    }
}

impl Watch {
    /// The next events; the first answer comes at once and may have none. What was lost on the way is asked for
    /// again, for as long as the options say.
    ///
    /// # Errors
    /// A server that cannot be reached for [`Options::retry_for`](crate::Options::retry_for), a bad request, and
    /// events that are not kept any more.
    pub async fn next(&mut self) -> Result<v1::WatchResponse, Error> {
        // It begins with the first that fails: waiting for events is none.
        let mut attempts = None;
        loop {
            let error = match self.received().await {
                Ok(response) => {
                    self.request.from_sequence = Some(response.next_sequence);
                    return Ok(response);
                }
                Err(error) => error,
            };
            self.stream = None;
            // Whoever was too slow goes on; they know what they have not seen.
            let slow = error.reason == Some(v1::ErrorReason::WatcherTooSlow);
            let begin = || Attempts::begin(self.client.options.retry_for);
            let attempts = attempts.get_or_insert_with(begin);
            if !slow && !attempts.wait(&error).await {
                return Err(error);
            }
        }
    }

    async fn received(&mut self) -> Result<v1::WatchResponse, Error> {
        let lost = |text: &str| Error::from(tonic::Status::unavailable(text));
        if self.stream.is_none() {
            let mut service = WatchServiceClient::new(self.client.channel.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX);
            let mut request = self.client.request(self.request.clone());
            // It has no end.
            request.metadata_mut().remove("grpc-timeout");
            let opened = tokio::time::timeout(self.client.options.timeout, service.watch(request));
            let opened = opened
                .await
                .map_err(|_| lost("the server does not answer"))?;
            self.stream = Some(opened.map_err(Error::from)?.into_inner());
        }
        let Some(stream) = &mut self.stream else {
            return Err(lost("there is no stream"));
        };
        match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(response))) => Ok(response),
            Ok(Ok(None)) => Err(lost("the server ended the stream")),
            Ok(Err(status)) => Err(Error::from(status)),
            Err(_) => Err(lost("the server has gone silent")),
        }
    }
}
