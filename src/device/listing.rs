//! What can run here, and why something cannot.

use std::fmt::Write;

use serde_json::{Value, json};

use super::nvml::{self, Reading};
use super::{Choice, Device, cuda};
use crate::error::Result;

/// The devices of this machine.
pub struct Listing {
    /// Threads of the CPU.
    pub threads: usize,
    /// The GPU that would be used, or why none can be.
    pub cuda: std::result::Result<String, String>,
    /// The GPUs that the driver shows.
    pub seen: Vec<String>,
    /// What NVML tells of every GPU, or why it tells nothing.
    pub nvml: std::result::Result<Vec<Reading>, String>,
}

impl Listing {
    /// Looks at what is there.
    ///
    /// # Errors
    /// Where the threads of the CPU cannot be started.
    pub fn new() -> Result<Listing> {
        let usable = Device::open(Choice::Cuda, 0);
        Ok(Listing {
            threads: Device::open(Choice::Cpu, 0)?.threads(),
            cuda: usable.map(|device| device.why().to_string()).map_err(|e| e.to_string()),
            seen: cuda::list().unwrap_or_default(),
            nvml: nvml::all(),
        })
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let (name, reason) = (self.cuda.as_ref().ok(), self.cuda.as_ref().err());
        let cuda = json!({"usable": self.cuda.is_ok(), "name": name, "reason": reason, "seen": self.seen});
        let nvml = match &self.nvml {
            Ok(readings) => json!({"gpus": readings}),
            Err(reason) => json!({"reason": reason}),
        };
        json!({"cpu": {"threads": self.threads}, "cuda": cuda, "nvml": nvml})
    }

    /// As text, a line a device.
    pub fn text(&self) -> String {
        let mut out = format!("cpu   {} threads\n", self.threads);
        let mut line = |text: String| {
            let _ = writeln!(out, "{text}"); // a string takes everything
        };
        line(format!("cuda  {}", self.cuda.as_ref().unwrap_or_else(|reason| reason)));
        for (number, name) in
            self.seen.iter().enumerate().filter(|_| self.cuda.is_err() || self.seen.len() > 1)
        {
            line(format!("      GPU {number}: {name}"));
        }
        match &self.nvml {
            Ok(readings) => readings.iter().for_each(|reading| {
                let (name, driver) = (reading.name.as_deref(), reading.driver.as_deref());
                let (name, driver) = (name.unwrap_or("a GPU"), driver.unwrap_or("unknown"));
                line(format!("nvml  {name}, driver {driver}: {reading}"));
            }),
            Err(reason) => line(format!("nvml  {reason}")),
        }
        out
    }
}
