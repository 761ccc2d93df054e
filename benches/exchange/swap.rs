//! A policy swap under full load: a list changes on disk while the generator asks all that it can.

use std::fs;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::bed::{Bed, Product};
use super::client::metric;
use super::load::{Second, load};
use super::measure::Plan;
use super::progress::Progress;
use super::rows::{Found, Row};
use super::run::{Protocol, Run};
use super::series::Series;
use super::{Failure, check};

/// How often.
const SWAPS: usize = 9;

/// The generator asks for so long.
const PLAN: Plan = Plan { rounds: SWAPS, seconds: 12.0 };

/// When the list changes, in seconds: about the half, and so far into a second that it does not seem to touch the one
/// before.
const CHANGE: f64 = PLAN.seconds / 2.0 + 0.4;

/// How long a change may take to be in force: lists are read by a thread that stands back, and is left 1.5 % of a core
/// where all are busy. Only a change that is in force while the generator still asks is measured.
const IN_FORCE: Duration = Duration::from_secs(60);

/// How often it is looked whether it is: each look costs the server a page.
const LOOK: Duration = Duration::from_millis(250);

/// By so much the generator's seconds and ours may begin apart.
const APART: f64 = 0.2;

/// The p99 of the seconds that a swap touches, the worst of them, beside the median of the others'.
pub(crate) async fn swaps(
    bed: &Bed,
    product: &Product,
    row: Row,
    left_out: &mut Vec<String>,
    progress: &mut Progress,
) -> Result<Option<Found>, Failure> {
    // A policy is compiled beside the worker, which no operator would pin to one core with it.
    bed.places.widen(product.pid()?).await?;
    let (mut touched, mut others) = (Vec::new(), Vec::new());
    for number in 0..PLAN.rounds {
        progress.say(&format!("policy swap {} of {}", number + 1, PLAN.rounds));
        let loading = async {
            let address = product.address(Protocol::Doh);
            let cores = bed.places.beside_two.as_ref();
            let (report, _) = load(bed, &Run::DOH, address, PLAN.seconds, cores).await?;
            // It ends at once when its time is over; when it began is known from that.
            Ok((report, Instant::now() - Duration::from_secs_f64(PLAN.seconds)))
        };
        let ((report, begun), [from, until]) = tokio::try_join!(loading, change(bed, product, number))?;
        if until > begun + Duration::from_secs_f64(PLAN.seconds) {
            let taken = (until - from).as_secs_f64();
            left_out.push(format!("{}: in force after {taken:.0} s only, when it was over", row.figure));
            return Ok(None);
        }
        let at = |moment: Instant| moment.saturating_duration_since(begun).as_secs_f64();
        let span = (at(from) - APART).max(0.0).floor() as u64..=(at(until) + APART).floor() as u64;
        // The first second has the handshakes in it, and the last may be none.
        let whole = 1..PLAN.seconds as u64;
        let seconds = report.per_second.iter().filter(|second| whole.contains(&second.second));
        let (within, around): (Vec<&Second>, Vec<_>) = seconds.partition(|second| span.contains(&second.second));
        touched.push(Series(within.iter().map(|second| second.p99_us / 1_000.0).collect()).range().1);
        others.push(Series(around.iter().map(|second| second.p99_us / 1_000.0).collect()).median());
    }
    Ok(Some(Found { row, ours: Series(touched), against: Some(("around", Series(others))) }))
}

/// Adds a name to the list; from when until when that took to be in force. It is looked from the start and to the end:
/// what a look costs is to be the same in all seconds.
async fn change(bed: &Bed, product: &Product, number: usize) -> Result<[Instant; 2], Failure> {
    let begun = Instant::now();
    let (list, next) = (bed.path("list.txt"), bed.path("list.next"));
    let name = format!("changed-{number}.com");
    // In the first second, which does not count: nothing but the server is to be in the way of the others.
    fs::write(&next, fs::read_to_string(&list)? + &name + "\n")?;
    let generation = async || metric(product.admin, "bailiwick_policy_generation").await;
    let before = generation().await?;
    let (mut from, mut until) = (None, None);
    while until.is_none() || begun.elapsed().as_secs_f64() < PLAN.seconds {
        let left = Duration::from_secs_f64(CHANGE).saturating_sub(begun.elapsed());
        sleep(if from.is_none() { LOOK.min(left) } else { LOOK }).await;
        let now = generation().await?;
        match from {
            None if begun.elapsed().as_secs_f64() >= CHANGE => {
                fs::rename(&next, &list)?;
                from = Some(Instant::now());
            }
            Some(_) if until.is_none() && now > before => until = Some(Instant::now()),
            Some(from) if until.is_none() && from.elapsed() > IN_FORCE => {
                return Err("the changed list is not taken up".into());
            }
            _ => {}
        }
    }
    for protocol in [Protocol::Doh, Protocol::Dot] {
        check::blocks(bed, protocol, product.address(protocol), &format!("www.{name}")).await?;
    }
    from.zip(until).map(|(from, until)| [from, until]).ok_or_else(|| "no change was made".into())
}
