//! What a connection takes that has asked once and is silent: very many are held, and the server's memory looked at.

use std::time::Duration;

use bailiwick::dns::{Qtype, made};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::sleep;

use super::account::resident_kib;
use super::bed::{Bed, Kind, Product};
use super::client::metric;
use super::names::Names;
use super::progress::Progress;
use super::rows::{Found, Row};
use super::run::Protocol;
use super::series::Series;
use super::{Failure, Wrong};

/// How many are held.
const HELD: usize = 10_000;

/// How many files this process needs beside them.
const FILES_BESIDE: u64 = 500;

/// For how long.
const FOR: Duration = Duration::from_secs(60);

/// How many are made at a time.
const AT_ONCE: usize = 32;

/// How many are made and closed before, so that what is made once is there.
const WARM: usize = 10;

/// Memory of a server that began with none, less what it had before, each; on a server that serves nothing else.
pub(crate) async fn held(
    bed: &Bed,
    row: Row,
    protocol: Protocol,
    left_out: &mut Vec<String>,
    progress: &mut Progress,
) -> Result<Option<Found>, Failure> {
    let files = rlimit::increase_nofile_limit(HELD as u64 + FILES_BESIDE)?;
    if files < HELD as u64 + FILES_BESIDE {
        left_out.push(format!("{}: only {files} files may be open (ulimit -n)", row.figure));
        return Ok(None);
    }
    let product = bed.product(&Kind::BARE, bed.places.server.as_ref()).await?;
    drop(connections(bed, &product, protocol, WARM).await?);
    product.settles().await?;
    let before = resident_kib(product.pid()?)?;
    progress.say(&format!("{}: making {HELD} connections", protocol.word()));
    let held = connections(bed, &product, protocol, HELD).await?;
    progress.say(&format!("{}: holding {HELD} connections for {} s", protocol.word(), FOR.as_secs()));
    sleep(FOR).await;
    let open = metric(product.admin, "bailiwick_connections_open").await?;
    if (open as usize) < HELD {
        return Err(Wrong(format!("of {HELD} connections only {open} are still open")).into());
    }
    let taken = resident_kib(product.pid()?)?.saturating_sub(before);
    drop(held);
    product.end().await?;
    Ok(Some(Found { row, ours: Series(vec![taken as f64 / HELD as f64]), against: None }))
}

/// So many, each after an exchange.
async fn connections(
    bed: &Bed,
    product: &Product,
    protocol: Protocol,
    count: usize,
) -> Result<Vec<std::net::TcpStream>, Failure> {
    let query = made::query(0, &Names::Hits.sample(0)?, Qtype::A);
    let address = product.address(protocol);
    let making = stream::iter(0..count).map(|_| bed.client.ask(protocol, address, &query)).buffer_unordered(AT_ONCE);
    let made: Vec<_> = making.collect().await;
    made.into_iter().map(|made| made.map(|(_, held)| held)).collect()
}
