//! What the public is told: the pages, put on the DoH listener.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use jiff::Timestamp;

use super::chronicle::Chronicle;
use crate::listener::doh;
use crate::pages::Pages;
use crate::pipeline::Pipeline;

/// The pages of a pipeline's orders; from when each is carried out here the chronicle knows.
pub(super) fn pages(pipeline: &Arc<Pipeline>, chronicle: &Arc<Chronicle>) -> Arc<dyn doh::Pages> {
    let chronicle = Arc::clone(chronicle);
    Arc::new(Pages::new(Arc::clone(pipeline), Some(Box::new(move |id| chronicle.since(id)))))
}

impl doh::Pages for Pages {
    fn has(&self, path: &str) -> bool {
        Self::has(path)
    }

    fn respond(&self, head: &Parts, now: Timestamp) -> Response<Bytes> {
        self.respond(head, now)
    }
}
