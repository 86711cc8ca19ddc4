use prometheus_client::metrics::counter::Counter;

use super::*;
use crate::telemetry;

struct Served {
    base: String,
    drain: Drain,
    task: tokio::task::JoinHandle<Result<(), AdminError>>,
}

async fn serve(registry: Registry, readiness: Readiness) -> Served {
    let admin =
        Admin::bind(AdminConfig { port: Some(0), ..Default::default() }.listen(9), Arc::new(registry), readiness).await;
    let admin = admin.unwrap();
    let base = format!("http://{}", admin.address());
    let drain = Drain::new();
    let task = tokio::spawn(admin.serve(drain.clone()));
    Served { base, drain, task }
}

async fn get(served: &Served, path: &str) -> (u16, String) {
    let reply = reqwest::get(format!("{}{path}", served.base)).await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

#[tokio::test]
async fn readiness_says_what_is_missing_until_nothing_is() {
    let readiness = Readiness::new();
    let kafka = readiness.condition("kafka", "no broker answered yet");
    let served = serve(telemetry::registry("test", "0"), readiness.clone()).await;
    assert_eq!(get(&served, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&served, "/readyz").await, (503, "kafka: no broker answered yet\n".to_owned()));
    kafka.met();
    assert_eq!(get(&served, "/readyz").await, (200, "ready\n".to_owned()));
    kafka.unmet("brokers went away");
    assert_eq!(get(&served, "/readyz").await, (503, "kafka: brokers went away\n".to_owned()));
    assert!(!readiness.is_ready());
}

#[tokio::test]
async fn metrics_are_served_as_open_metrics_and_the_port_closes_on_drain() {
    let mut registry = telemetry::registry("test", "0");
    let landed = Counter::<u64>::default();
    registry.register("landed_rows", "Rows landed", landed.clone());
    landed.inc_by(7);
    let served = serve(registry, Readiness::new()).await;
    let (status, text) = get(&served, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("causeway_test_landed_rows_total 7") && text.ends_with("# EOF\n"), "{text}");
    served.drain.cancel();
    served.task.await.unwrap().unwrap();
    assert!(reqwest::get(format!("{}/healthz", served.base)).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_set() {
    let first = Admin::bind(AdminConfig::default().listen(0), Arc::default(), Readiness::new()).await.unwrap();
    let error = Admin::bind(first.address(), Arc::default(), Readiness::new()).await.unwrap_err();
    assert!(error.to_string().contains(&first.address().to_string()) && error.to_string().contains("`admin.port`"));
}
