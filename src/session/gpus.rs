//! A session on several GPUs: each has one of its own, of the same model and data.

use super::Session;
use crate::device::Device;
use crate::error::Result;

impl Session {
    /// Carries out work on each GPU of the device, on a session of its own. Only that of the first one reports.
    pub(crate) fn together<R>(
        &self,
        first: impl FnOnce(&Session) -> Result<R>,
        others: impl Fn(&Session) -> Result<()> + Sync,
    ) -> Result<R> {
        if self.device.count() == 1 {
            return first(self);
        }
        let on = |device: &Device, reports: bool| Session {
            device: device.clone(),
            network: self.network.clone(),
            family: self.family,
            samples: self.samples.clone(),
            names: self.names.clone(),
            normalise: self.normalise.clone(),
            shows_samples: self.shows_samples,
            beside: self.beside.clone(),
            validation: self.validation.clone(),
            earlier: self.earlier.clone(),
            proxy: self.proxy.clone(),
            forgotten: self.forgotten.clone(),
            held: self.held.clone(),
            files: self.files.clone(),
            notes: self.notes.clone(),
            hashes: self.hashes.clone(),
            stop: self.stop.clone(),
            progress: self.progress.clone().filter(|_| reports),
            log: self.log.clone().filter(|_| reports),
            command: self.command.clone(),
        };
        self.device.check_free(4 * self.network.parameters(), "the parameters")?;
        self.device.together(|device| first(&on(device, true)), |device| others(&on(device, false)))
    }
}
