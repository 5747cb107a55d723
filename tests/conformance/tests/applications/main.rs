//! The delivered modules of mirrors, with the real servers, machines and containers they are for: nothing acknowledged is lost.

mod cloud;
mod guest;
mod servers;
