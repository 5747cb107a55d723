//! Is an address configured here, and does the interface that has it carry?

use net::rtnl::Rtnl;
use std::net::IpAddr;

/// `Err`: why not. An outer error is a failure to ask the kernel.
pub(crate) type Local = Result<(), String>;

pub(crate) fn address(rtnl: &mut Rtnl, ip: IpAddr) -> Result<Local, net::NetError> {
    let found = rtnl.addresses()?.iter().any(|a| a.ip == ip);
    Ok(if found { Ok(()) } else { Err(format!("address {ip} is not configured here")) })
}

pub(crate) fn interface(rtnl: &mut Rtnl, ip: IpAddr) -> Result<Local, net::NetError> {
    let Some(index) = rtnl.addresses()?.iter().find(|a| a.ip == ip).map(|a| a.index) else {
        return Ok(Err(format!("no interface has the address {ip}")));
    };
    Ok(match rtnl.links()?.into_iter().find(|l| l.index == index) {
        Some(link) if link.carrier => Ok(()),
        Some(link) => Err(format!("interface {} has no link", link.name)),
        None => Err(format!("the interface of {ip} is gone")),
    })
}

/// The link of an interface given by its name.
pub(crate) fn named(rtnl: &mut Rtnl, name: &str) -> Result<Local, net::NetError> {
    Ok(match rtnl.links()?.into_iter().find(|l| l.name == name) {
        Some(link) if link.carrier => Ok(()),
        Some(_) => Err(format!("interface {name} has no link")),
        None => Err(format!("there is no interface {name}")),
    })
}
