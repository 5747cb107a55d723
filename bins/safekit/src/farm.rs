//! What do scripts of farms say and ask with `safekit -r`? `saferpc_send vipd SETGROUPS …` and `vip_if_ctrl -l`.

use crate::cli::Failure;
use crate::paths::Place;
use crate::runner::{ask, state};
use serde_json::{Value, json};

/// `None`: no command of a farm.
pub fn run(place: &Place, name: &str, arguments: &[String]) -> Option<Result<u8, Failure>> {
    match name {
        "saferpc_send" => Some(send(place, arguments)),
        "vip_if_ctrl" => Some(control(place, arguments)),
        _ => None,
    }
}

/// Opens or closes the traffic of a module with `scriptcontrol="on"`.
fn send(place: &Place, arguments: &[String]) -> Result<u8, Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let value = match words.as_slice() {
        ["vipd", "SETGROUPS", "all", "all", "all"] => "all",
        ["vipd", "SETGROUPS", "none", "none", "none"] => "none",
        _ => {
            let help = "saferpc_send vipd SETGROUPS all all all opens the traffic, none none none closes it";
            return Err(Failure::usage(help));
        }
    };
    let module = place.module()?;
    crate::verbs::logged(place, || match ask(&place.roots, module, &json!({"verb": "setgroups", "value": value}))? {
        Some(_) => Ok(0),
        None => {
            Err(Failure::new(1, format!("module {module} is not running; start it with `safekit start -m {module}`")))
        }
    })
}

/// Which entries of each group's table are ours.
fn control(place: &Place, arguments: &[String]) -> Result<u8, Failure> {
    if arguments != ["-l"] {
        return Err(Failure::usage("vip_if_ctrl -l prints the tables of the module's groups"));
    }
    let module = place.module()?;
    let reply = state(&place.roots, module)?.reply;
    let Some(groups) = reply.get("farm").and_then(|f| f.get("groups")).and_then(Value::as_array) else {
        return Err(Failure::new(1, format!("module {module} shares no traffic now")));
    };
    for group in groups {
        let word = |name: &str| group.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        crate::verbs::put(&format!("{}:", word("group")))?;
        crate::verbs::put(&sys::lines::wrap(&format!("  {}", word("bitmap")), 2))?;
    }
    Ok(0)
}

/// `FarmProto_0 50%`, as `state` shows it.
pub fn shares(reply: &Value) -> Option<String> {
    let groups = reply.get("farm")?.get("groups")?.as_array()?;
    let words: Vec<String> =
        groups.iter().filter_map(|g| Some(format!("{} {}%", g.get("group")?.as_str()?, g.get("percent")?))).collect();
    (!words.is_empty()).then(|| words.join(", "))
}
