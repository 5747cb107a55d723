//! What do `add`, `remove`, `show` and `probe` do for somebody at a shell?

use crate::claim::{Claim, probe as ask, reset};
use crate::cli::{Add, Failure, Probe, Remove, Show};
use net::probe::{Patience, Probe as Question};
use net::rtnl::Rtnl;
use net::{Address, Link, NetError};
use serde_json::json;
use std::io::{self, Write};
use sys::failure::put;

pub fn add(args: &Add) -> Result<u8, Failure> {
    let mut rtnl = Rtnl::open()?;
    let (links, addresses) = (rtnl.links()?, rtnl.addresses()?);
    let ip = args.address.ip;
    let mut claim =
        Claim::prepare(ip, args.address.prefix, args.interface.as_deref(), args.one_side, &links, &addresses)?;
    claim.adopt(&mut rtnl, &links, &addresses)?;
    if !args.no_probe {
        ask(&[&claim], Patience::default())?;
    }
    let lifetime_s = args.lifetime.map(|l| u32::try_from(l.as_millis().div_ceil(1000)).unwrap_or(u32::MAX));
    claim.set(&mut rtnl, lifetime_s)?;
    claim.announce();
    claim.prefer(&mut rtnl)?;
    let place = &claim.place;
    if args.json {
        let line = json!({"address": ip, "prefix": place.prefix, "interface": place.link.name, "value": "up"});
        put(&line.to_string())?;
    } else {
        put(&format!("{ip}/{} added on {}", place.prefix, place.link.name))?;
    }
    Ok(0)
}

pub fn remove(args: &Remove) -> Result<u8, Failure> {
    let mut rtnl = Rtnl::open()?;
    let links = rtnl.links()?;
    let name = |a: &Address| links.iter().find(|l| l.index == a.index).map_or("", |l| l.name.as_str());
    let ip = args.address.ip;
    let present: Vec<Address> = rtnl
        .addresses()?
        .into_iter()
        .filter(|a| a.ip == ip && args.address.prefix.is_none_or(|p| p == a.prefix))
        .filter(|a| args.interface.as_deref().is_none_or(|i| i == name(a)))
        .collect();
    if present.is_empty() {
        let _ = writeln!(io::stderr(), "sk-vip: {ip} is not an address of this host");
        return Ok(1);
    }
    let connections = if args.keep_connections { Some(0) } else { reset(ip)? };
    if connections.is_none() {
        let _ = writeln!(io::stderr(), "sk-vip: this kernel cannot reset connections (INET_DIAG_DESTROY is missing)");
    }
    for address in &present {
        rtnl.remove_address(address.index, ip, address.prefix)?;
        if args.json {
            let line = json!({"address": ip, "prefix": address.prefix, "interface": name(address), "value": "down",
                "connections_reset": connections});
            put(&line.to_string())?;
        } else {
            let tail = match connections {
                Some(1) => ", 1 connection reset".to_owned(),
                Some(n) if n > 1 => format!(", {n} connections reset"),
                _ => String::new(),
            };
            put(&format!("{ip}/{} removed from {}{tail}", address.prefix, name(address)))?;
        }
    }
    Ok(0)
}

pub fn show(args: &Show) -> Result<u8, Failure> {
    let mut rtnl = Rtnl::open()?;
    let links = rtnl.links()?;
    let mut rows = Vec::new();
    for address in rtnl.addresses()? {
        let Some(link) = links.iter().find(|l| l.index == address.index) else { continue };
        let wanted = match args.address {
            Some(ip) => ip == address.ip,
            None => !link.loopback,
        };
        if wanted {
            rows.push((address, link));
        }
    }
    if args.json {
        for (address, link) in &rows {
            put(&json!({"address": address.ip, "prefix": address.prefix, "interface": link.name, "mac": link.mac,
                "carrier": link.carrier, "lifetime_s": address.valid_s, "virtual": address.marked})
            .to_string())?;
        }
    } else {
        let mut table = vec![HEAD.map(str::to_owned)];
        table.extend(rows.iter().map(|(a, l)| row(a, l)));
        for line in sys::lines::table(&table) {
            put(&line)?;
        }
    }
    if let (Some(ip), true) = (args.address, rows.is_empty()) {
        let _ = writeln!(io::stderr(), "sk-vip: {ip} is not an address of this host");
        return Ok(1);
    }
    Ok(0)
}

const HEAD: [&str; 6] = ["ADDRESS", "INTERFACE", "MAC", "CARRIER", "LIFETIME", "OWNER"];

fn row(address: &Address, link: &Link) -> [String; 6] {
    [
        format!("{}/{}", address.ip, address.prefix),
        link.name.clone(),
        link.mac.map_or("-".to_owned(), |m| m.to_string()),
        if link.carrier { "up" } else { "down" }.to_owned(),
        address.valid_s.map_or("forever".to_owned(), |s| format!("{s}s")),
        if address.marked { "sk" } else { "host" }.to_owned(),
    ]
}

pub fn probe(args: &Probe) -> Result<u8, Failure> {
    let mut rtnl = Rtnl::open()?;
    let (links, addresses) = (rtnl.links()?, rtnl.addresses()?);
    let ip = args.address;
    let place = net::choose::place(ip, None, args.interface.as_deref(), &links, &addresses)?;
    let interface = place.link.name.clone();
    let Some(question) = Question::new(&place.link, ip)? else {
        let why = if place.link.carrier { "speaks neither ARP nor neighbour discovery" } else { "has no carrier" };
        return Err(Failure::Net(NetError::sys(
            format!("cannot probe {ip}: {interface} {why}"),
            io::Error::from_raw_os_error(nix::errno::Errno::ENETDOWN as i32),
        )));
    };
    let patience = Patience { count: args.count, wait: args.wait };
    let owner = net::probe::first_conflict(&[question], patience)?.map(|(_, mac)| mac);
    let value = if owner.is_some() { "used" } else { "free" };
    if args.json {
        put(&json!({"address": ip, "interface": interface, "value": value, "mac": owner}).to_string())?;
    } else if let Some(mac) = owner {
        put(&format!("{ip} is used by MAC {mac} on {interface}"))?;
    } else {
        put(&format!("{ip} is free on {interface}"))?;
    }
    Ok(if owner.is_some() { 3 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_address_fits_80_columns() {
        let link = Link {
            index: 2,
            name: "enxaabbccddeeff".into(),
            mac: Some(net::Mac([0xaa; 6])),
            up: true,
            carrier: false,
            loopback: false,
            arp: true,
        };
        let address = Address {
            index: 2,
            ip: "2001:db8:1234:5678:aaaa:bbbb:cccc:dddd".parse().unwrap(),
            prefix: 128,
            valid_s: Some(u32::MAX - 1),
            marked: false,
            marked_by_other: false,
            tentative: false,
        };
        let lines = sys::lines::table(&[HEAD.map(str::to_owned), row(&address, &link)]);
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        assert!(lines[0].starts_with("ADDRESS ") && lines[2].starts_with("2001:db8:"), "{lines:#?}");
    }
}
