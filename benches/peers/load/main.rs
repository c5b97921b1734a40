//! Load for comparisons with peers: DHCP, TFTP and HTTP clients that cost little themselves. Each prints one JSON object; `run.py` drives them.

use clap::Parser;

mod dhcp;
mod http;
mod probe;
mod tftp;

/// Load generators of the peers' bench
#[derive(Debug, Parser)]
enum Load {
    /// DHCP exchanges through a relay, a number of them outstanding
    Dhcp(dhcp::Dhcp),
    /// How soon an address is offered after a command has reserved it
    Probe(probe::Probe),
    /// Read requests, a number of them at once
    Tftp(tftp::Tftp),
    /// GET over connections that are kept
    Http(http::Http),
}

fn main() {
    let told = match Load::parse() {
        Load::Dhcp(load) => load.run(),
        Load::Probe(load) => load.run(),
        Load::Tftp(load) => load.run(),
        Load::Http(load) => load.run(),
    };
    match told {
        Ok(told) => println!("{told}"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

/// The value below which that share of the sorted `values` lies; 0 without values.
fn share(values: &[f64], share: f64) -> f64 {
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share) as usize).copied().unwrap_or(0.0)
}
