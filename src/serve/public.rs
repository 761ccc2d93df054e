//! What the public is told: the pages, put on the DoH listener.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use jiff::Timestamp;

use crate::listener::doh;
use crate::pages::Pages;
use crate::pipeline::Pipeline;

/// The pages of a pipeline's orders.
pub(super) fn pages(pipeline: &Arc<Pipeline>) -> Arc<dyn doh::Pages> {
    Arc::new(Pages::new(Arc::clone(pipeline), None))
}

impl doh::Pages for Pages {
    fn has(&self, path: &str) -> bool {
        Self::has(path)
    }

    fn respond(&self, head: &Parts, now: Timestamp) -> Response<Bytes> {
        self.respond(head, now)
    }
}
