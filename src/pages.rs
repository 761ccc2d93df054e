//! The public page of each order that is public, and the list of them: what is blocked, by whom, and what to do about it.
//!
//! Nothing of whoever looks is kept or counted, and every page is the same for everyone.

pub mod accept;
mod html;
mod view;
mod words;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use jiff::Timestamp;

use crate::digest::Digest;
use crate::dns::Name;
use crate::pipeline::Pipeline;
use crate::policy::{Policy, PolicyOrder};
use accept::Form;
use view::{Listing, OrderView};

/// The path of the list; an order's page is at `/orders/ID`.
pub const PATH: &str = "/orders";

/// How long a page may be kept, by whoever likes, in seconds: as long as a blocked answer. A lift shows as soon.
const CACHE_CONTROL: &str = "public, max-age=60";

/// The port that an `https:` URL need not name.
const HTTPS_PORT: u16 = 443;

/// Where the public finds the page of an order, its id apart: `https://dns.example.net:8443/orders/`.
#[must_use]
pub fn url(name: &Name, port: u16) -> String {
    match port {
        HTTPS_PORT => format!("https://{name}{PATH}/"),
        port => format!("https://{name}:{port}{PATH}/"),
    }
}

/// From when an order is carried out on this node, by its id.
pub type Since = Box<dyn Fn(&str) -> Option<Timestamp> + Send + Sync>;

/// Makes the pages.
pub struct Pages {
    pipeline: Arc<Pipeline>,
    since: Option<Since>,
    security: HeaderValue,
    list: ArcSwapOption<List>,
}

/// Says nothing of what is in it: a closure has no form.
impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// The list in both forms, as the policy of this generation has it: it is the one page whose work grows with the orders.
struct List {
    generation: u64,
    html: Bytes,
    json: Bytes,
}

impl Pages {
    /// Pages of the orders of a pipeline's policy. `since` tells from when an order is carried out here, where that is
    /// known; its dates stand for it where it is not.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>, since: Option<Since>) -> Self {
        Self { pipeline, since, security: security(), list: ArcSwapOption::empty() }
    }

    /// Whether a path is that of a page, there or not.
    #[must_use]
    pub fn has(path: &str) -> bool {
        place_of(path).is_some()
    }

    /// The response to a request; HEAD has the body that its sender must leave out.
    #[must_use]
    pub fn respond(&self, head: &Parts, now: Timestamp) -> Response<Bytes> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return self.refusal();
        }
        let form =
            accept::preferred(head.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()));
        let policy = self.pipeline.policy();
        match place_of(head.uri.path()) {
            Some(Place::List) => self.page(StatusCode::OK, form, self.list(&policy, form, now)),
            Some(Place::Order(id)) => match public(&policy).find(|order| order.loaded.order.id == id) {
                Some(order) => self.page(StatusCode::OK, form, self.order(order, form, now)),
                None => self.not_found(form),
            },
            None => self.not_found(form),
        }
    }

    fn list(&self, policy: &Policy, form: Form, now: Timestamp) -> Bytes {
        let kept = self.list.load_full().filter(|kept| kept.generation == policy.generation());
        let list = kept.unwrap_or_else(|| {
            let listing = Listing::new(public(policy), now);
            let (html, json) = (html::list(&listing).into_string().into(), json(&listing));
            let made = Arc::new(List { generation: policy.generation(), html, json });
            self.list.store(Some(Arc::clone(&made)));
            made
        });
        match form {
            Form::Html => list.html.clone(),
            Form::Json => list.json.clone(),
        }
    }

    fn order(&self, order: &PolicyOrder, form: Form, now: Timestamp) -> Bytes {
        let since = self.since.as_ref().and_then(|since| since(&order.loaded.order.id));
        let view = OrderView::new(order, since, now);
        match form {
            Form::Html => html::order(&view, now).into_string().into(),
            Form::Json => json(&view),
        }
    }

    /// Of an order that is not public nothing more is told than of one that is not there.
    fn not_found(&self, form: Form) -> Response<Bytes> {
        let body = match form {
            Form::Html => html::not_found().into_string().into(),
            Form::Json => Bytes::from_static(b"{\"error\":\"no such order is public here\"}\n"),
        };
        self.page(StatusCode::NOT_FOUND, form, body)
    }

    fn refusal(&self) -> Response<Bytes> {
        let mut response =
            self.page(StatusCode::METHOD_NOT_ALLOWED, Form::Html, html::wrong_method().into_string().into());
        // RFC 9110 §15.5.6: 405 must name what is allowed.
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    }

    fn page(&self, status: StatusCode, form: Form, body: Bytes) -> Response<Bytes> {
        let media_type = match form {
            Form::Html => "text/html; charset=utf-8",
            Form::Json => "application/json",
        };
        let fields: [(HeaderName, HeaderValue); 6] = [
            (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
            (header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL)),
            (header::VARY, HeaderValue::from_static("Accept")),
            (header::CONTENT_SECURITY_POLICY, self.security.clone()),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = HeaderMap::from_iter(fields);
        response
    }
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Place<'p> {
    List,
    Order(&'p str),
}

fn place_of(path: &str) -> Option<Place<'_>> {
    match path.strip_prefix(PATH)? {
        "" => Some(Place::List),
        rest => rest.strip_prefix('/').map(Place::Order),
    }
}

fn public(policy: &Policy) -> impl Iterator<Item = &PolicyOrder> {
    policy.orders().iter().filter(|order| order.loaded.order.public)
}

/// No script, nothing from elsewhere, nobody's frame: a page is its own words in its own style, which is known by its
/// hash.
fn security() -> HeaderValue {
    let style = BASE64_STANDARD.encode(Digest::of(html::STYLE.as_bytes()).0);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // ASCII words and base64: never refused. Without it nothing at all may be loaded.
    HeaderValue::from_maybe_shared(Bytes::from(policy)).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn json(value: &impl serde::Serialize) -> Bytes {
    // Text, numbers and dates only: this cannot fail.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text.into()
}

#[cfg(test)]
mod tests;
