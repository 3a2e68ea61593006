//! Backends that SRV records name, and DNS servers of one's own choice: a build with the feature `srv` has
//! them, and another one says that it has not.

#[cfg(feature = "srv")]
mod discovery;

#[cfg(not(feature = "srv"))]
mod missing {
    use std::process::Command;

    use crate::harness::edge::binary;
    use crate::harness::edge::write_config;

    #[test]
    fn a_program_without_the_feature_says_so_and_does_not_start() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let yaml = "upstreams: {app: {addresses: [\"srv:_http._tcp.app.test\"]}}\n\
                    routes: [{upstream: app}]\n";
        let path = write_config(&folder, yaml);
        let said = Command::new(binary()).arg("check").arg("-c").arg(&path).output();
        let said = said.expect("it can be started");
        assert!(!said.status.success());
        let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(said.contains("built without") && said.contains("--features srv"), "{said}");
    }
}
