//! What a GPU is doing, by NVML (opened at run time, once): clocks, power, temperature, memory, and what slows it.
//! Nothing depends on it but reports.

use std::fmt;
use std::sync::OnceLock;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;

/// One GPU at one moment; what NVML refuses to say, as it does of a part of a GPU, is absent.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Reading {
    /// As the driver names it.
    pub name: Option<String>,
    /// `GPU-` and 32 hexadecimal digits in groups.
    pub uuid: Option<String>,
    /// Version of the driver.
    pub driver: Option<String>,
    /// Of the multiprocessors, MHz.
    pub sm_clock: Option<u32>,
    /// At most, MHz.
    pub sm_clock_limit: Option<u32>,
    /// MHz.
    pub memory_clock: Option<u32>,
    /// Watts.
    pub power: Option<f64>,
    /// Watts.
    pub power_limit: Option<f64>,
    /// °C.
    pub temperature: Option<u32>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// What holds the clocks down, in NVML's words; idleness does not count.
    pub slowed_by: Option<Vec<String>>,
}

/// Reads the GPU of this UUID.
///
/// # Errors
/// The reason, where NVML is not there or does not know the GPU.
pub fn read(uuid: &str) -> Result<Reading, String> {
    let nvml = open()?;
    let gpu = nvml.device_by_uuid(uuid).map_err(|e| format!("NVML does not know {uuid}: {e}"))?;
    Ok(Reading::of(nvml, &gpu))
}

/// Reads every GPU that NVML shows.
///
/// # Errors
/// The reason, where NVML is not there.
pub fn all() -> Result<Vec<Reading>, String> {
    let nvml = open()?;
    let count = nvml.device_count().map_err(|e| e.to_string())?;
    Ok((0..count)
        .map(|i| nvml.device_by_index(i).map_or_else(|_| Reading::default(), |gpu| Reading::of(nvml, &gpu)))
        .collect())
}

fn open() -> Result<&'static Nvml, String> {
    static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();
    let opened = NVML.get_or_init(|| {
        Nvml::init().map_err(|error| match error {
            NvmlError::LibloadingError(_) => "NVML (libnvidia-ml.so.1) was not found".to_string(),
            other => format!("NVML cannot be used: {other}"),
        })
    });
    opened.as_ref().map_err(String::clone)
}

impl Reading {
    fn of(nvml: &Nvml, gpu: &nvml_wrapper::Device) -> Reading {
        let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
        let memory = gpu.memory_info().ok();
        Reading {
            name: gpu.name().ok(),
            uuid: gpu.uuid().ok(),
            driver: nvml.sys_driver_version().ok(),
            sm_clock: gpu.clock_info(Clock::SM).ok(),
            sm_clock_limit: gpu.max_clock_info(Clock::SM).ok(),
            memory_clock: gpu.clock_info(Clock::Memory).ok(),
            power: gpu.power_usage().ok().map(watts),
            power_limit: gpu.enforced_power_limit().ok().map(watts),
            temperature: gpu.temperature(TemperatureSensor::Gpu).ok(),
            memory_used: memory.as_ref().map(|memory| memory.used),
            memory: memory.map(|memory| memory.total),
            slowed_by: gpu.current_throttle_reasons().ok().map(slowed_by),
        }
    }
}

fn slowed_by(reasons: ThrottleReasons) -> Vec<String> {
    let reasons = reasons.difference(ThrottleReasons::GPU_IDLE);
    reasons.iter_names().map(|(name, _)| name.to_lowercase().replace('_', " ")).collect()
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let of = |now: Option<String>, limit: Option<String>, unit: &str| match (now, limit) {
            (Some(now), Some(limit)) => Some(format!("{now} of {limit} {unit}")),
            (now, _) => now.map(|now| format!("{now} {unit}")),
        };
        let whole = |value: Option<f64>| value.map(|value| format!("{value:.0}"));
        let gib = |bytes: Option<u64>| bytes.map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 30)));
        let clock = |clock: Option<u32>| whole(clock.map(f64::from));
        let parts = [
            of(clock(self.sm_clock), clock(self.sm_clock_limit), "MHz"),
            of(clock(self.memory_clock), None, "MHz memory"),
            of(whole(self.power), whole(self.power_limit), "W"),
            of(clock(self.temperature), None, "°C"),
            of(gib(self.memory_used), gib(self.memory), "GiB in use"),
            self.slowed_by
                .as_ref()
                .filter(|by| !by.is_empty())
                .map(|by| format!("slowed by {}", by.join(", "))),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => f.write_str("NVML says nothing of it"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_says_what_is_known_and_no_more() {
        assert_eq!(Reading::default().to_string(), "NVML says nothing of it");
        let some = Reading {
            sm_clock: Some(1755),
            sm_clock_limit: Some(1980),
            power: Some(310.4),
            memory_used: Some(3 << 29),
            memory: Some(80 << 30),
            slowed_by: Some(slowed_by(ThrottleReasons::GPU_IDLE | ThrottleReasons::SW_POWER_CAP)),
            ..Reading::default()
        };
        assert_eq!(
            some.to_string(),
            "1755 of 1980 MHz, 310 W, 1.5 of 80.0 GiB in use, slowed by sw power cap"
        );
        assert_eq!(slowed_by(ThrottleReasons::GPU_IDLE), [""; 0]);
    }
}
