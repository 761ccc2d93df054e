//! Bailiwick: an encrypted-DNS front end that carries out block orders exactly where they apply and nowhere else.
//!
//! ```text
//! bytes → listener → Query ─ policy.admit ─→ Permitted ─ cache.get │ upstream.forward ─→ Reply ─ policy.screen ─→ Screened ─→ Answer → listener
//!             │                 ├→ Block ───────────────────── Failure ─────────────────────────────┴→ Block ──────────→ Answer
//!             │                 └→ Local ──────────────────────────────────────────────────────────────────────────────→ Answer
//! ```
//!
//! Each arrow is a type, and only the stage before it can make that type; skipping the policy does not compile. Begin
//! with [`pipeline::Pipeline::answer`], the product in one function. The modules below stand in reading order, and each
//! uses only those above it; `ARCHITECTURE.md` has the map and the invariants.

pub mod mistake;
pub mod digest;
pub mod dns;
pub mod query;
pub mod clock;
pub mod crowd;
pub mod sign;
pub mod policy;
pub mod ledger;
pub mod cache;
pub mod tls;
pub mod upstream;
pub mod local;
pub mod answer;
pub mod telemetry;
pub mod pipeline;
pub mod listener;
pub mod admin;
pub mod probe;
pub mod pages;
pub mod load;
pub mod config;
pub mod serve;
