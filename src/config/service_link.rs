//! Environment variables that Kubernetes sets in every pod for a Service called `sidecache` or `sidecache-...`. They
//! have the settings' prefix but are not settings
//! (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether Kubernetes sets this variable for a Service. `name` is the variable's name without the settings' prefix.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    // The words before `at` are the rest of the Service's name.
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
        for (name, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "80"),
            ("SERVICE_PORT_HTTP", "80"),
            ("SERVICE_PORT_HTTP_ALT", "80"),
            ("PORT", "tcp://10.0.0.1:80"),
            ("PORT", "tcp://[fd00::1]:80"),
            ("PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("PORT_80_TCP_PROTO", "tcp"),
            ("PORT_80_TCP_PORT", "80"),
            ("PORT_80_TCP_ADDR", "10.0.0.1"),
            ("PORT_53_UDP", "udp://10.0.0.1:53"),
            ("REDIS_A_SERVICE_HOST", "10.0.0.1"),
            ("REDIS_A_PORT", "tcp://10.0.0.1:6379"),
            ("REDIS_A_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_service_link(name, value), "{name}={value}");
        }
    }

    #[test]
    fn a_mistyped_setting_is_no_service() {
        for (name, value) in [
            ("PORT", "8080"),
            ("LISTEN_PORT", "8080"),
            ("HOST", "10.0.0.1"),
            ("PORT_TCP", "tcp://10.0.0.1:80"),
            ("PORT_80_HTTP", "80"),
            ("SERVICE", "x"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
        for setting in super::super::all_settings() {
            assert!(!is_service_link(&setting.name.to_uppercase(), "x"), "{}", setting.name);
        }
    }
}
