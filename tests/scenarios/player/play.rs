//! Plays a scenario and says what was not as expected, line by line.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bailiwick::answer::Written;
use bailiwick::pipeline::{Client, Country, Progress};
use bailiwick::query::Malformed;
use bytes::BytesMut;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::expect::{Answered, check};
use super::network::Script;
use super::product::Product;
use super::script::{Ask, Deed, Expect, Filter, Scenario, Step, Trouble};

/// The longest that any answer may take, in simulated time; far beyond every deadline.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What stands in the output buffer before an answer is appended to it.
const BEFORE: &[u8] = b"\xaa\xbb\xcc";

/// Plays it to its end; what is wrong, in the order of the lines.
pub fn play(scenario: &Scenario) -> Vec<Trouble> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![Trouble { line: 0, what: error.to_string() }],
    };
    let mut troubles = runtime.block_on(LocalSet::new().run_until(async {
        let script = Script::new(&scenario.servers);
        match Product::build(scenario, &script) {
            Err(trouble) => vec![trouble],
            Ok(product) => {
                let mut stage = Stage::new(scenario, product, script);
                for step in &scenario.steps {
                    stage.step(step).await;
                }
                stage.end().await
            }
        }
    }));
    troubles.sort_by_key(|trouble| trouble.line);
    troubles
}

struct Stage<'s> {
    scenario: &'s Scenario,
    product: Product,
    script: std::sync::Arc<Script>,
    began: Instant,
    /// Connections stay open from one query to the next, across reloads too.
    clients: HashMap<(IpAddr, Option<Country>), Rc<Client>>,
    waiting: Vec<JoinHandle<()>>,
    troubles: Rc<RefCell<Vec<Trouble>>>,
}

impl<'s> Stage<'s> {
    fn new(scenario: &'s Scenario, product: Product, script: std::sync::Arc<Script>) -> Self {
        let (clients, waiting, troubles) = (HashMap::new(), Vec::new(), Rc::default());
        Self { scenario, product, script, began: Instant::now(), clients, waiting, troubles }
    }

    async fn step(&mut self, step: &Step) {
        match step.at {
            Some(at) => self.wait_until(at).await,
            None => self.wait_for_answers().await,
        }
        match &step.deed {
            Deed::Ask { client, ask, expect } => self.ask(step.line, *client, ask, expect),
            Deed::Reload(changes) => {
                if let Err(trouble) = self.product.reload(changes) {
                    self.troubles.borrow_mut().push(trouble);
                }
            }
            Deed::Saw { server, queries, filter } => {
                self.compare(step.line, "queries", *queries, self.script.queries(Some(*server), filter));
            }
            Deed::Connections { server, count } => {
                self.compare(step.line, "connections", *count, self.script.connections(*server));
            }
        }
    }

    fn compare(&self, line: usize, what: &str, expected: usize, actual: usize) {
        if expected != actual {
            let what = format!("expected {expected} {what}, there were {actual}");
            self.troubles.borrow_mut().push(Trouble { line, what });
        }
    }

    /// Lets time pass, a new generation being made wherever an order begins or ends on the way.
    async fn wait_until(&mut self, at: Duration) {
        loop {
            let passed = self.began.elapsed();
            let now = self.scenario.start + jiff::SignedDuration::try_from(passed).unwrap_or_default();
            let next = self.product.next_moment(now).and_then(|moment| self.since_start(moment));
            let next = next.filter(|moment| *moment <= at);
            sleep_until(self.began + next.unwrap_or(at)).await;
            if next.is_none() {
                return;
            }
            self.product.pass_moment();
        }
    }

    fn since_start(&self, moment: jiff::Timestamp) -> Option<Duration> {
        Duration::try_from(moment.duration_since(self.scenario.start)).ok()
    }

    async fn wait_for_answers(&mut self) {
        for waiting in self.waiting.drain(..) {
            if let Err(error) = waiting.await {
                self.troubles
                    .borrow_mut()
                    .push(Trouble { line: 0, what: format!("an answer was not to be had: {error}") });
            }
        }
    }

    fn ask(&mut self, line: usize, address: IpAddr, ask: &Ask, expect: &[(usize, Expect)]) {
        let pipeline = self.product.pipeline.clone();
        let made = || Rc::new(pipeline.client(address, ask.listener));
        let client = self.clients.entry((address, ask.listener)).or_insert_with(made).clone();
        let seen_before = self.script.queries(None, &Filter::default());
        let asked_at = Instant::now();
        let mut out = BytesMut::from(BEFORE);
        let report = Report {
            line,
            ask: ask.clone(),
            expect: expect.to_vec(),
            asked_at,
            seen_before,
            script: self.script.clone(),
            troubles: self.troubles.clone(),
        };
        let progress = match &pipeline.read(&ask.octets, ask.transport) {
            Ok(query) => pipeline.answer(&client, query, pipeline.clock().now(), &mut out),
            Err(Malformed::Fault(fault)) => Progress::Answered(pipeline.fault(fault, &mut out)),
            Err(Malformed::Short | Malformed::Response) => return report.judge(None),
        };
        match progress {
            Progress::Answered(written) if out.starts_with(BEFORE) => {
                report.judge(Some((out[BEFORE.len()..].to_vec(), written)));
            }
            Progress::Answered(_) => report.trouble("what stood in the output buffer was overwritten".into()),
            Progress::Waiting(waiting) => {
                self.waiting.push(tokio::task::spawn_local(async move {
                    match timeout(ANSWER_TIMEOUT, waiting.finish()).await {
                        Ok((octets, written)) => report.judge(Some((octets.to_vec(), written))),
                        Err(_) => report.trouble(format!("no answer within {ANSWER_TIMEOUT:?}")),
                    }
                }));
            }
        }
    }

    async fn end(mut self) -> Vec<Trouble> {
        self.wait_for_answers().await;
        let faults = self.script.faults().into_iter().map(|what| Trouble { line: 0, what });
        self.troubles.borrow_mut().extend(faults);
        self.troubles.take()
    }
}

/// What is needed to judge an answer when it comes.
struct Report {
    line: usize,
    ask: Ask,
    expect: Vec<(usize, Expect)>,
    asked_at: Instant,
    seen_before: usize,
    script: std::sync::Arc<Script>,
    troubles: Rc<RefCell<Vec<Trouble>>>,
}

impl Report {
    fn judge(&self, answer: Option<(Vec<u8>, Written)>) {
        let answered = answer.map(|(octets, written)| Answered {
            octets,
            written,
            took: self.asked_at.elapsed(),
            upstream_queries: self.script.queries(None, &Filter::default()) - self.seen_before,
        });
        let troubles = check(self.line, &self.ask, &self.expect, answered.as_ref());
        self.troubles.borrow_mut().extend(troubles);
    }

    fn trouble(&self, what: String) {
        self.troubles.borrow_mut().push(Trouble { line: self.line, what });
    }
}
