//! What a query costs the product, against the bare stack, in one run.
#![allow(missing_docs, clippy::print_stdout, reason = "a program, not a library")]

mod canned;

use std::io::Write;
use std::path::Path;

use canned::Speaks;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["canned", speaks, padded, certificate, key] = words[..] {
        let speaks = if speaks == "doh" { Speaks::Doh } else { Speaks::Dot };
        let ready = |address| {
            println!("{address}");
            let _ = std::io::stdout().flush();
        };
        let end = canned::serve(speaks, padded == "padded", Path::new(certificate), Path::new(key), ready);
        panic!("{end:?}");
    }
}
