//! Does `sk-top` show a living mirror, page by page, and does it act? Driven by keys in a terminal of tmux.

use anyhow::{Context, Result, ensure};
use e2e::lab;
use e2e::mirror::{LATER, Mirror, SOON};
use e2e::wait;
use std::process::Command;

/// A terminal of 80 by 24 in which `sk-top` runs on a host.
struct Screen {
    socket: String,
}

impl Screen {
    fn open(mirror: &Mirror, host: &str) -> Result<Self> {
        let screen = Self { socket: format!("{}-{host}", mirror.lab.name()) };
        let script = lab::scripts().join("lab");
        let line = format!("TERM=screen-256color {} --name {} exec {host} sk-top", script.display(), mirror.lab.name());
        screen.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &line])?;
        Ok(screen)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        command.args(["-f", "/dev/null", "-L", &self.socket]).args(arguments);
        lab::checked(command, arguments)
    }

    fn text(&self) -> Result<String, String> {
        self.tmux(&["capture-pane", "-p"]).map_err(|error| format!("{error:#}"))
    }

    /// Waits until all of these words stand on the screen.
    fn shows(&self, words: &[&str]) -> Result<()> {
        wait::until(&format!("the screen shows {words:?}"), SOON, || {
            let text = self.text()?;
            if words.iter().all(|word| text.contains(word)) { Ok(()) } else { Err(text) }
        })
    }

    fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It has ended already when the program has.
        let _ = self.tmux(&["kill-server"]);
    }
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn every_page_shows_a_mirror_and_a_key_swaps_it() -> Result<()> {
    Mirror::started("top", "files", r#"async="second""#)?.scenario(|mirror| {
        let screen = Screen::open(mirror, "node1")?;
        let follower = Screen::open(mirror, "node2")?;
        screen.shows(&["1 Overview", "files", "PRIM Ready", "SECOND Ready", "1 SECOND Ready", "Local state PRIM Ready"])?;
        follower.shows(&["files", "SECOND Ready", "1 PRIM Ready"])?;

        screen.press(&["2"])?;
        screen.shows(&["resources", ">heart.maxloop", "history of heart.maxloop"])?;
        // The resources come in the order of their names; the history is that of the one chosen.
        screen.press(&["Down"])?;
        screen.shows(&[">heartbeat.default", "history of heartbeat.default", "  up"])?;

        screen.press(&["3"])?;
        screen.shows(&["degraded_server", "false", "why", "PRIM Ready, since"])?;

        for (screen, arrow) in [(&screen, "── in sync ──▶"), (&follower, "◀── in sync ──")] {
            screen.press(&["4"])?;
            screen.shows(&[arrow, "sent", "acknowledged after", "received"])?;
        }
        let mut writer = mirror.lab.spawn(
            "node1",
            &["sh", "-c", "while [ ! -e /srv/stop ]; do dd if=/dev/zero of=/srv/data/load bs=64k count=50 oflag=dsync 2>/dev/null; done"],
        )?;
        let seen = screen.shows(&["acknowledged after", ", worst"]).and_then(|()| follower.shows(&["received", "iB/s   at most"]));
        mirror.lab.exec("node1", &["touch", "/srv/stop"])?;
        writer.wait()?;
        seen?;

        screen.press(&["5"])?;
        screen.shows(&["log of files", "follows", "Local state PRIM Ready"])?;
        screen.press(&["/", "r", "e", "m", "o", "t", "e", " ", "s", "t", "a", "t", "e", "Enter"])?;
        screen.shows(&["/remote state", "Remote state SECOND Ready"])?;
        let text = screen.text().map_err(anyhow::Error::msg)?;
        ensure!(!text.contains("Local state"), "the filter lets everything through: {text}");
        screen.press(&["?"])?;
        screen.shows(&["help", "any key: back"])?;
        screen.press(&["x"])?;

        screen.press(&["1"])?;
        screen.press(&["w"])?;
        screen.shows(&["swap files? y/n"])?;
        screen.press(&["n"])?;
        screen.shows(&["? help"])?;
        ensure!(mirror.state("node1").is_ok_and(|s| s.state == "PRIM"), "a swap that was not confirmed");
        screen.press(&["w", "y"])?;
        mirror.reaches("node2", "PRIM Ready", LATER)?;
        screen.shows(&["SECOND Ready", "PRIM Ready"])?;
        screen.press(&["q"])?;
        wait::until("sk-top ends", SOON, || {
            let ended = screen.tmux(&["has-session"]).is_err();
            if ended { Ok(()) } else { Err(screen.text()?) }
        })
        .context("q")
    })
}
