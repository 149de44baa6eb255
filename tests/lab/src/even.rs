//! Calls at an even pace, from several customers, each slowly: a control plane that is not optimised takes its time.
use lab::{ControlPlane, now, numbers, pause};
use serde_json::json;
use std::time::Duration;

/// Customers side by side.
const CUSTOMERS: u32 = 50;

/// Places calls that are answered and hear a beep, `per_second` for so long; gives how many. Numbers come again after
/// 10,000 calls.
pub(crate) fn place(plane: &ControlPlane, per_second: u32, length: Duration) -> anyhow::Result<u32> {
    let start = now();
    let calls = per_second * u32::try_from(length.as_secs())?;
    let gap = Duration::from_secs(1) / per_second;
    let place = |customer: u32| {
        for n in (customer..calls).step_by(CUSTOMERS as usize) {
            pause((start + gap * n).saturating_duration_since(now()));
            let to = numbers::number(numbers::ANSWER, u16::try_from(n % 10_000).unwrap_or(0));
            plane.place(&json!({"to": to, "message": {"audio_id": "builtin:beep"}}))?;
        }
        Ok::<_, lab::LabError>(())
    };
    std::thread::scope(|scope| {
        let customers: Vec<_> = (0..CUSTOMERS).map(|customer| scope.spawn(move || place(customer))).collect();
        for customer in customers {
            customer.join().map_err(|_| anyhow::anyhow!("a customer panicked"))??;
        }
        Ok(calls)
    })
}
