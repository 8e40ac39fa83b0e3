//! Environment variables that Kubernetes sets in every pod for a Service called `sidecache` or `sidecache-...`. They
//! have the settings' prefix but are not settings
//! (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).

use super::settings::ENV_PREFIX;

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether Kubernetes sets this variable for a Service.
pub(super) fn is_service_link(variable: &str, value: &str) -> bool {
    let Some(name) = variable.strip_prefix(ENV_PREFIX) else { return false };
    let words: Vec<&str> = name.split('_').collect();
    // Before these words comes the rest of the Service's name, if any.
    (0..words.len()).any(|at| match words[at..] {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        ["PORT"] => is_address(value),
        ["PORT", port, protocol] => is_port(port) && PROTOCOLS.contains(&protocol),
        ["PORT", port, protocol, "PROTO" | "PORT" | "ADDR"] => is_port(port) && PROTOCOLS.contains(&protocol),
        _ => false,
    })
}

/// `tcp://10.0.0.1:8080`.
fn is_address(value: &str) -> bool {
    PROTOCOLS.iter().any(|protocol| value.starts_with(&format!("{}://", protocol.to_lowercase())))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_makes_for_a_service_is_known() {
        for (variable, value) in [
            ("SIDECACHE_SERVICE_HOST", "10.0.0.1"),
            ("SIDECACHE_SERVICE_PORT", "80"),
            ("SIDECACHE_SERVICE_PORT_HTTP", "80"),
            ("SIDECACHE_SERVICE_PORT_HTTP_ALT", "80"),
            ("SIDECACHE_PORT", "tcp://10.0.0.1:80"),
            ("SIDECACHE_PORT", "tcp://[fd00::1]:80"),
            ("SIDECACHE_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("SIDECACHE_PORT_80_TCP_PROTO", "tcp"),
            ("SIDECACHE_PORT_80_TCP_PORT", "80"),
            ("SIDECACHE_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("SIDECACHE_PORT_53_UDP", "udp://10.0.0.1:53"),
            ("SIDECACHE_REDIS_A_SERVICE_HOST", "10.0.0.1"),
            ("SIDECACHE_REDIS_A_PORT", "tcp://10.0.0.1:6379"),
            ("SIDECACHE_REDIS_A_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_service_link(variable, value), "{variable}={value}");
        }
    }

    #[test]
    fn a_mistyped_setting_is_no_service() {
        for (variable, value) in [
            ("SIDECACHE_PORT", "8080"),
            ("SIDECACHE_LISTEN_PORT", "8080"),
            ("SIDECACHE_HOST", "10.0.0.1"),
            ("SIDECACHE_PORT_TCP", "tcp://10.0.0.1:80"),
            ("SIDECACHE_PORT_80_HTTP", "80"),
            ("SIDECACHE_SERVICE", "x"),
            ("PORT", "tcp://10.0.0.1:80"),
        ] {
            assert!(!is_service_link(variable, value), "{variable}={value}");
        }
        for setting in super::super::all_settings() {
            assert!(!is_service_link(&setting.variable(), "x"), "{}", setting.name);
        }
    }
}
