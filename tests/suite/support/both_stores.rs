//! One test body, several tests: `embedded::<name>` and `shards::<name>`. With `on_every_server` also
//! `redis_6_2::<name>` and `redis_8_2::<name>` for other releases of Redis, and `least_rights::<name>` for a Redis
//! user with the fewest rights.

/// Makes two tests of each named body, on the services that all tests share. A body is
/// `async fn body(service: &Service)`.
macro_rules! on_both_stores {
    ($($body:ident),+ $(,)?) => {
        mod embedded {
            $(crate::support::both_stores::on_shared_service!($body, Embedded);)+
        }
        mod shards {
            $(crate::support::both_stores::on_shared_service!($body, Shards);)+
        }
    };
}

/// Like `on_both_stores`, with more tests on an older and a newer Redis.
macro_rules! on_every_release {
    ($($body:ident),+ $(,)?) => {
        crate::support::both_stores::on_both_stores!($($body),+);
        mod redis_6_2 {
            $(crate::support::both_stores::on_release!($body, V6_2);)+
        }
        mod redis_8_2 {
            $(crate::support::both_stores::on_release!($body, V8_2);)+
        }
    };
}

/// Like `on_every_release`, with more tests on shards that grant few rights.
macro_rules! on_every_server {
    ($($body:ident),+ $(,)?) => {
        crate::support::both_stores::on_every_release!($($body),+);
        mod least_rights {
            $(crate::support::both_stores::on_confined!($body);)+
        }
    };
}

/// Makes two tests of each named body, which starts its own services with the given settings. A body is
/// `async fn body(settings: Settings)`.
macro_rules! on_own_services {
    ($($body:ident),+ $(,)?) => {
        mod embedded {
            $(crate::support::both_stores::on_own_service!($body, Embedded);)+
        }
        mod shards {
            $(crate::support::both_stores::on_own_service!($body, Shards);)+
        }
    };
}

macro_rules! on_shared_service {
    ($body:ident, $store:ident) => {
        #[tokio::test]
        async fn $body() {
            let service = crate::support::service::Store::$store.shared_service();
            let _log = service.log_on_failure();
            super::$body(service).await;
        }
    };
}

macro_rules! on_release {
    ($body:ident, $release:ident) => {
        #[tokio::test]
        async fn $body() {
            let service = crate::support::release::Release::$release.shared_service();
            let _log = service.log_on_failure();
            super::$body(service).await;
        }
    };
}

macro_rules! on_confined {
    ($body:ident) => {
        #[tokio::test]
        async fn $body() {
            let service = crate::support::confined::shared_service();
            let _log = service.log_on_failure();
            super::$body(service).await;
        }
    };
}

macro_rules! on_own_service {
    ($body:ident, $store:ident) => {
        #[tokio::test]
        async fn $body() {
            super::$body(crate::support::service::Store::$store.settings()).await;
        }
    };
}

pub(crate) use {
    on_both_stores, on_confined, on_every_release, on_every_server, on_own_service, on_own_services, on_release,
    on_shared_service,
};
