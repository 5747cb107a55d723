//! A module in words of its userconfig.xml: what of the ordinary one does a scenario want otherwise?

/// `_rfs_callback` of the module `mir`: notes its word, and objects (exit 2) to the word in the file `objects`.
pub const CALLBACK: &str = r#"#!/bin/sh
echo "$1" >>/srv/mir/callbacks
[ "$(cat /srv/mir/objects 2>/dev/null)" = "$1" ] && exit 2
exit 0
"#;

/// Configuration of a module. All values are XML as it stands in the file.
#[derive(Clone, Debug)]
pub struct Spec {
    pub(crate) name: String,
    pub(crate) id: u32,
    pub(crate) nodes: Vec<String>,
    mode: &'static str,
    service: String,
    heart: String,
    vip: Option<String>,
    directory: Option<String>,
    rfs: Option<String>,
    body: String,
    whole: Option<String>,
    pub(crate) scripts: Vec<(String, String)>,
}

/// Every script notes when it was called, how, and when it ended (see [`crate::Module::calls`]). The application is a
/// process of its own name, `app-MODULE`; `prestart` ends what a crash left of it. The file `/srv/MODULE/slow` makes the plain `stop_prim` last as many seconds.
const SCRIPT: &str = r#"#!/bin/sh
name=${0##*/}
own=/srv/$SAFEMODULE
note() { echo "$(date +%s%N) $*" >>"$own/calls"; }
note begin "$name" "$@"
case $name in
prestart) pkill -x "app-$SAFEMODULE"; cp -f /bin/sleep "$own/app-$SAFEMODULE" 2>/dev/null ;;
start_prim|start_both) setsid "$own/app-$SAFEMODULE" 100000 </dev/null >/dev/null 2>&1 & ;;
stop_prim|stop_both)
    if [ -e "$own/slow" ] && [ "$1" != force ]; then sleep "$(cat "$own/slow")"; fi
    pkill -x "app-$SAFEMODULE" ;;
esac
note end "$name" "$@"
exit 0
"#;

impl Spec {
    /// A mirror module on node1 and node2: two heartbeats with a timeout of two seconds, `/srv/NAME/data` replicated, no
    /// virtual address, scripts that note their calls.
    pub fn mirror(name: &str) -> Self {
        let scripts = ["prestart", "start_prim", "stop_prim", "start_second", "stop_second", "start_sec", "stop_sec"];
        Self {
            name: name.to_owned(),
            id: 1,
            nodes: vec!["node1".to_owned(), "node2".to_owned()],
            mode: "mirror",
            service: r#"boot="auto""#.to_owned(),
            heart: r#"<heart pulse="300ms" timeout="2000ms"><heartbeat name="default"/><heartbeat name="repl" ident="flow"/></heart>"#
                .to_owned(),
            vip: None,
            directory: None,
            rfs: Some(r#"async="second""#.to_owned()),
            body: String::new(),
            whole: None,
            scripts: scripts.iter().map(|script| ((*script).to_owned(), SCRIPT.to_owned())).collect(),
        }
    }

    /// A module whose `userconfig.xml` is given whole (farm, light), with the scripts named, all of which note their calls.
    pub fn whole(name: &str, nodes: &[&str], userconfig: &str, scripts: &[&str]) -> Self {
        let mut spec = Self::mirror(name).on(nodes);
        spec.whole = Some(userconfig.to_owned());
        spec.scripts = scripts.iter().map(|script| ((*script).to_owned(), SCRIPT.to_owned())).collect();
        spec
    }

    /// The module's number, from which its ports derive.
    #[must_use]
    pub fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }

    /// The nodes it is configured on.
    #[must_use]
    pub fn on(mut self, nodes: &[&str]) -> Self {
        self.nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        self
    }

    /// Attributes of `<service>` beside `mode`; by default `boot="auto"`.
    #[must_use]
    pub fn service(mut self, attributes: &str) -> Self {
        attributes.clone_into(&mut self.service);
        self
    }

    /// The two nodes of a mirror in a cluster of more than two, by their numbers.
    #[must_use]
    pub fn between(self, one: u32, two: u32) -> Self {
        let heart = format!(
            r#"<heart pulse="300ms" timeout="2000ms"><heartbeat name="default-{one}-{two}"/><heartbeat name="repl-{one}-{two}" ident="flow"/></heart>"#
        );
        self.on(&[&format!("node{one}"), &format!("node{two}")]).heart(&heart)
    }

    /// The whole element `<heart>`.
    #[must_use]
    pub fn heart(mut self, element: &str) -> Self {
        element.clone_into(&mut self.heart);
        self
    }

    /// A virtual address on the network `prod`: its last number.
    #[must_use]
    pub fn vip(mut self, last: u8) -> Self {
        self.vip = Some(last.to_string());
        self
    }

    /// Attributes of `<rfs>`.
    #[must_use]
    pub fn rfs(mut self, attributes: &str) -> Self {
        self.rfs = Some(attributes.to_owned());
        self
    }

    /// Another replicated directory.
    #[must_use]
    pub fn replicating(mut self, directory: &str) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// No replicated directories.
    #[must_use]
    pub fn without_rfs(mut self) -> Self {
        self.rfs = None;
        // The label is reserved for the network of the replication.
        self.heart = self.heart.replace(r#" ident="flow""#, "");
        self
    }

    /// More elements (`<errd>`, `<check>`, `<failover>`); they come after `<user>`.
    #[must_use]
    pub fn body(mut self, elements: &str) -> Self {
        elements.clone_into(&mut self.body);
        self
    }

    /// A script, by name; replaces the ordinary one.
    #[must_use]
    pub fn script(mut self, name: &str, text: &str) -> Self {
        self.scripts.retain(|(other, _)| other != name);
        self.scripts.push((name.to_owned(), text.to_owned()));
        self
    }

    /// The replicated directory.
    pub fn directory(&self) -> String {
        self.directory.clone().unwrap_or_else(|| format!("/srv/{}/data", self.name))
    }

    /// The file's text. `network`: of `prod`, e.g. `10.101.0`.
    pub(crate) fn userconfig(&self, network: &str) -> String {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let vip = self.vip.as_ref().map_or_else(String::new, |last| {
            format!(
                r#"<vip><interface_list><interface check="on"><real_interface>
      <virtual_addr addr="{network}.{last}" where="one_side_alias" connections="on"/>
    </real_interface></interface></interface_list></vip>"#
            )
        });
        let rfs = self.rfs.as_ref().map_or_else(String::new, |attributes| {
            format!(r#"<rfs {attributes}><replicated dir="{}" mode="read_only"/></rfs>"#, self.directory())
        });
        format!(
            "<!DOCTYPE safe>\n<safe>\n  <service mode=\"{}\" {}>\n    {}\n    {vip}\n    {rfs}\n    <user/>\n    {}\n  </service>\n</safe>\n",
            self.mode, self.service, self.heart, self.body
        )
    }
}
