//! Who asks the servers? Clients with an address and a kernel's network of their own, all behind one port of the switch.

use anyhow::{Context, Result, ensure};
use e2e::farm::Farm;
use std::process::Output;

/// The host in which they live.
const HOST: &str = "client";
/// Their last bytes begin here.
const FIRST: u32 = 110;

/// Else a rate of connections is that of ports that become free: 28 000 in a minute.
pub const MANY_CONNECTIONS: [&str; 2] = ["net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1"];

/// `c1`, `c2`, …: network namespaces of the host `client`.
pub struct Clients(u32);

/// What `wrk` found.
pub struct Rate {
    /// Requests a second, of all clients.
    pub rate: f64,
    /// Mean time of a request, of the first client.
    pub latency_us: f64,
}

impl Clients {
    pub fn new(farm: &Farm, count: u32) -> Result<Self> {
        let network = farm.vip.rsplit_once('.').context("an IPv4 address")?.0;
        for n in 1..=count {
            let address = format!("{network}.{}/24", FIRST + n);
            let inside = format!("ip -n c{n}");
            farm.lab.sh(
                HOST,
                &format!(
                    "ip netns add c{n} && ip link add link eth0 name m{n} type macvlan mode bridge && \
                     ip link set m{n} netns c{n} && {inside} address add {address} dev m{n} && {inside} link set m{n} up && \
                     {inside} link set lo up"
                ),
            )?;
            let client = format!("c{n}");
            // Routes spread by ports too, as `on_port` shares.
            let set = ["ip", "netns", "exec", &client, "sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1"];
            farm.lab.exec(HOST, &[&set[..], &MANY_CONNECTIONS].concat())?;
        }
        Ok(Self(count))
    }

    /// Connections to an address are spread over these hosts.
    pub fn route(&self, farm: &Farm, address: &str, via: &[String]) -> Result<()> {
        let next: Vec<&str> = via.iter().flat_map(|host| ["nexthop", "via", host]).collect();
        for n in 1..=self.0 {
            let begin = ["ip", "-n", &format!("c{n}"), "route", "replace", &format!("{address}/32")];
            farm.lab.exec(HOST, &[&begin, &next[..]].concat())?;
        }
        Ok(())
    }

    /// One request of the first client.
    pub fn curl(farm: &Farm, url: &str) -> Result<Output> {
        farm.lab.try_exec(HOST, &["ip", "netns", "exec", "c1", "curl", "-sf", "-m", "2", url])
    }

    /// Requests in this many connections of all clients together; each request in a connection of its own with `close`.
    pub fn wrk(&self, farm: &Farm, url: &str, connections: u32, seconds: u32, close: bool) -> Result<Rate> {
        let header = if close { "-H 'Connection: close'" } else { "" };
        let loads: Vec<String> = (0..self.0)
            .map(|n| (n + 1, connections / self.0 + u32::from(n < connections % self.0)))
            .filter(|(_, share)| *share > 0)
            .map(|(n, share)| format!("ip netns exec c{n} wrk -t1 -c{share} -d{seconds}s {header} {url} & "))
            .collect();
        let text = farm.lab.sh(HOST, &format!("{} wait", loads.concat()))?;
        let rates = numbers(&text, "Requests/sec:", |t| t.parse().ok());
        ensure!(rates.len() == loads.len() && !text.contains("Non-2xx"), "{url}: {text}");
        let latency_us = numbers(&text, "Latency", microseconds).first().copied().with_context(|| text.clone())?;
        Ok(Rate { rate: rates.iter().sum(), latency_us })
    }
}

/// The first word after a name at the beginning of lines.
fn numbers(text: &str, name: &str, read: fn(&str) -> Option<f64>) -> Vec<f64> {
    let of = |line: &str| line.trim().strip_prefix(name).and_then(|rest| rest.split_whitespace().next()).and_then(read);
    text.lines().filter_map(of).collect()
}

/// `12.34us`, `1.23ms`, `1.2s`.
fn microseconds(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(at)?;
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|n| n * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_wrk() {
        assert!((microseconds("12.5us").unwrap_or_default() - 12.5).abs() < 1e-9);
        assert!((microseconds("1.5ms").unwrap_or_default() - 1500.0).abs() < 1e-9);
        assert!(microseconds("fast").is_none());
        let two = "    Latency   150.10us   20us\nRequests/sec:  10.5\n  Latency 1.5ms\nRequests/sec:   2\n";
        assert_eq!(numbers(two, "Requests/sec:", |t| t.parse().ok()), [10.5, 2.0]);
        assert_eq!(numbers(two, "Latency", microseconds), [150.1, 1500.0]);
    }
}
