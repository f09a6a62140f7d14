//! The script of a job: for Slurm, or for this machine.

use std::fmt::Write as _;
use std::path::Path;

use super::quoting::{directive, output_path, shell};
use super::restarts::RESTARTS_VARIABLE;
use super::{
    COME_BACK, FAILED_VARIABLE, JobError, JobPlan, PROGRESS, PROGRESS_VARIABLE, Place, RanksPerNode, SCRIPT,
};

/// Seconds before the end of its time at which a job is told.
const NOTICE_SECONDS: u32 = 180;

impl JobPlan {
    /// The script for a job in that place.
    ///
    /// # Errors
    /// If something in it cannot be written as text on one line.
    pub fn script_for(&self, place: Place) -> Result<String, JobError> {
        match place {
            Place::Here => self.local_script(),
            Place::Slurm => self.script(),
        }
    }

    /// The script, ready for `sbatch`.
    ///
    /// # Errors
    /// If something in it cannot be written as text on one line.
    pub fn script(&self) -> Result<String, JobError> {
        let working_folder = text("working folder", &self.working_folder)?;
        let mut script = String::from("#!/bin/bash\n");
        for (option, value) in self.options(working_folder)? {
            line(&mut script, &format!("#SBATCH --{option}={value}"));
        }
        line(&mut script, "#SBATCH --requeue");
        line(&mut script, "# To the ranks, not to this script: they agree on a step, save, and end with 75.");
        line(&mut script, &format!("#SBATCH --signal=USR2@{NOTICE_SECONDS}"));
        line(&mut script, "");
        if let Some(cpus) = self.cpus_per_rank {
            // Since 22.05 srun does not take them over from the job.
            line(&mut script, &format!("export SRUN_CPUS_PER_TASK={cpus} RAYON_NUM_THREADS={cpus}"));
        }
        self.surroundings(&mut script)?;
        line(&mut script, "restarts=${SLURM_RESTART_COUNT:-0}");
        line(&mut script, "# A rank that fails for good says so there.");
        line(&mut script, &format!("export {FAILED_VARIABLE}=$folder/failed-$SLURM_JOB_ID-$restarts"));
        line(
            &mut script,
            "echo \"job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, restart $restarts, $(date -Is)\"",
        );
        line(&mut script, "");
        let mpi = self.mpi.as_ref().map_or(String::new(), |mpi| format!(" --mpi={}", shell(mpi)));
        line(&mut script, &format!("srun --kill-on-bad-exit=1{mpi} -- {}", self.words()));
        script.push_str(&self.filled(SLURM_ENDING));
        Ok(script)
    }

    /// The script for this machine.
    fn local_script(&self) -> Result<String, JobError> {
        let working_folder = text("working folder", &self.working_folder)?;
        let mut script = String::from("#!/bin/bash\n");
        line(&mut script, &format!("cd {} || exit 1", shell(working_folder)));
        if let Some(cpus) = self.cpus_per_rank {
            line(&mut script, &format!("export RAYON_NUM_THREADS={cpus}"));
        }
        self.surroundings(&mut script)?;
        script.push_str(&self.filled(LOCAL_LOOP).replace("COMMAND", &self.words()));
        Ok(script)
    }

    /// Modules, the job's folder, and variables.
    fn surroundings(&self, script: &mut String) -> Result<(), JobError> {
        if !self.modules.is_empty() {
            script.push_str(MODULES);
            let modules: Vec<String> = self.modules.iter().map(|module| shell(module)).collect();
            line(script, &format!("module load {} || exit 1", modules.join(" ")));
        }
        line(script, &format!("folder={}", shell(text("folder of the job", &self.folder)?)));
        line(script, &format!("export {PROGRESS_VARIABLE}=$folder/{PROGRESS}"));
        for (name, value) in &self.environment {
            line(script, &format!("export {name}={}", shell(value)));
        }
        Ok(())
    }

    /// The command as a line of the shell, inside of its container.
    fn words(&self) -> String {
        let words: Vec<String> = self.container.iter().chain(&self.command).map(|word| shell(word)).collect();
        words.join(" ")
    }

    fn filled(&self, part: &str) -> String {
        part.replace("COME_BACK", &COME_BACK.to_string())
            .replace("FAILED_VARIABLE", FAILED_VARIABLE)
            .replace("RESTARTS_VARIABLE", RESTARTS_VARIABLE)
            .replace("MOST_RESTARTS", &self.most_restarts.to_string())
            .replace("SCRIPT", SCRIPT)
    }

    fn options(&self, working_folder: &str) -> Result<Vec<(&'static str, String)>, JobError> {
        let output = self.output();
        let mut options = vec![
            ("job-name", directive(one_line("name of the job", &self.name)?)),
            ("chdir", directive(one_line("working folder", working_folder)?)),
            ("output", output_path(one_line("folder of the job", text("folder of the job", &output)?)?)),
            ("open-mode", "append".to_owned()),
            ("nodes", self.nodes.to_string()),
            ("ntasks-per-node", self.ranks.count().to_string()),
        ];
        if let Some(cpus) = self.cpus_per_rank {
            options.push(("cpus-per-task", cpus.to_string()));
        }
        if let RanksPerNode::Gpus(gpus) = self.ranks {
            options.push(("gpus-per-node", gpus.to_string()));
        }
        for (option, value) in
            [("time", &self.time), ("partition", &self.partition), ("account", &self.account)]
        {
            if let Some(value) = value {
                options.push((option, directive(one_line(option, value)?)));
            }
        }
        Ok(options)
    }
}

/// Where scripts have no command `module`, though people do.
const MODULES: &str = r#"for setup in /etc/profile.d/{modules,lmod,z00_lmod}.sh; do
    # shellcheck disable=SC1090
    if ! command -v module >/dev/null && [ -r "$setup" ]; then . "$setup"; fi
done
"#;

/// The command, started again as long as it asks for that.
const LOCAL_LOOP: &str = r#"restarts=0
stopped=
# Whoever stops the job tells the program as well, which saves and ends; it is not started again then.
trap 'stopped=yes' TERM INT HUP

while true; do
    # A start that fails for good says so there.
    export FAILED_VARIABLE=$folder/failed-$restarts RESTARTS_VARIABLE=$restarts
    echo "on $HOSTNAME, restart $restarts, $(date -Is)"
    COMMAND
    code=$?
    if [ "$code" -ne COME_BACK ] || [ -n "$stopped" ] || [ -s "$FAILED_VARIABLE" ]; then
        break
    fi
    if [ "$restarts" -ge MOST_RESTARTS ]; then
        echo "started again MOST_RESTARTS times, which is enough"
        break
    fi
    restarts=$((restarts + 1))
    echo "ended with code $code, starts again"
done
echo "ended with code $code"
exit "$code"
"#;

/// What follows the ranks' end. A job that was cancelled, or that Slurm has requeued itself, is not `RUNNING` any more.
const SLURM_ENDING: &str = r#"code=$?

stop() {
    echo "job $SLURM_JOB_ID: $1"
    # Slurm forgets how jobs ended.
    echo "$code" >"$folder/exit"
    exit "$code"
}
if [ "$code" -eq 0 ]; then
    stop "done"
fi
if [ -s "$FAILED_VARIABLE" ]; then
    stop "failed, not started again: $(head -n 1 "$FAILED_VARIABLE")"
fi
if [ "$code" -ne COME_BACK ] && { [ "$code" -lt 128 ] || [ "$code" -eq 130 ]; }; then
    stop "ended with code $code, not started again"
fi
if [ "$restarts" -ge MOST_RESTARTS ]; then
    stop "started again MOST_RESTARTS times, which is enough; to go on all the same: sbatch $folder/SCRIPT"
fi
if [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" != RUNNING ]; then
    stop "ended by Slurm with code $code"
fi
echo "job $SLURM_JOB_ID: ended with code $code, starts again"
scontrol requeue "$SLURM_JOB_ID" || stop "Slurm does not start it again; to go on: sbatch $folder/SCRIPT"
"#;

fn line(script: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(script, "{text}");
}

fn text<'a>(what: &'static str, path: &'a Path) -> Result<&'a str, JobError> {
    path.to_str().ok_or_else(|| JobError::Unwritable { what, value: path.display().to_string() })
}

fn one_line<'a>(what: &'static str, value: &'a str) -> Result<&'a str, JobError> {
    if value.contains(['\n', '\r']) {
        return Err(JobError::Unwritable { what, value: value.to_owned() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn plan() -> JobPlan {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        JobPlan {
            name: "moths".into(),
            command: words("/opt/harvest train --config moths.toml"),
            working_folder: "/data/moths".into(),
            folder: "/data/moths/jobs/1".into(),
            nodes: 2,
            ranks: RanksPerNode::Tasks(1),
            cpus_per_rank: Some(4),
            mpi: Some("pmix".into()),
            time: None,
            partition: None,
            account: None,
            most_restarts: 100,
            modules: Vec::new(),
            container: Vec::new(),
            environment: Vec::new(),
        }
    }

    const EXPECTED: &str = r##"#!/bin/bash
#SBATCH --job-name=moths
#SBATCH --chdir=/data/moths
#SBATCH --output=/data/moths/jobs/1/output.txt
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --requeue
# To the ranks, not to this script: they agree on a step, save, and end with 75.
#SBATCH --signal=USR2@180

export SRUN_CPUS_PER_TASK=4 RAYON_NUM_THREADS=4
folder=/data/moths/jobs/1
export HARVEST_PROGRESS=$folder/progress.json
restarts=${SLURM_RESTART_COUNT:-0}
# A rank that fails for good says so there.
export HARVEST_JOB_FAILED=$folder/failed-$SLURM_JOB_ID-$restarts
echo "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, restart $restarts, $(date -Is)"

srun --kill-on-bad-exit=1 --mpi=pmix -- /opt/harvest train --config moths.toml
code=$?

stop() {
    echo "job $SLURM_JOB_ID: $1"
    # Slurm forgets how jobs ended.
    echo "$code" >"$folder/exit"
    exit "$code"
}
if [ "$code" -eq 0 ]; then
    stop "done"
fi
if [ -s "$HARVEST_JOB_FAILED" ]; then
    stop "failed, not started again: $(head -n 1 "$HARVEST_JOB_FAILED")"
fi
if [ "$code" -ne 75 ] && { [ "$code" -lt 128 ] || [ "$code" -eq 130 ]; }; then
    stop "ended with code $code, not started again"
fi
if [ "$restarts" -ge 100 ]; then
    stop "started again 100 times, which is enough; to go on all the same: sbatch $folder/job.sbatch"
fi
if [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" != RUNNING ]; then
    stop "ended by Slurm with code $code"
fi
echo "job $SLURM_JOB_ID: ended with code $code, starts again"
scontrol requeue "$SLURM_JOB_ID" || stop "Slurm does not start it again; to go on: sbatch $folder/job.sbatch"
"##;

    #[test]
    fn the_script_of_a_job_on_processors() {
        assert_eq!(plan().script().expect("it can be written"), EXPECTED);
    }

    #[test]
    fn a_job_on_gpus_asks_for_them_and_what_is_said_is_quoted() {
        let mut plan = plan();
        plan.ranks = RanksPerNode::Gpus(4);
        plan.mpi = None;
        plan.name = "the moth's \"job\" #1".into();
        plan.folder = "/my data/50 %j".into();
        plan.command = vec!["/opt/my harvest".into(), "--set".into(), "data.root=it's $HOME".into()];
        plan.time = Some("1-12:00:00".into());
        plan.partition = Some("gpu".into());
        plan.account = Some("bio".into());
        let script = plan.script().expect("it can be written");
        for wanted in [
            r##"#SBATCH --job-name="the moth's \"job\" #1""##,
            r##"#SBATCH --output="/my data/50 %%j/output.txt""##,
            "#SBATCH --ntasks-per-node=4\n",
            "#SBATCH --gpus-per-node=4\n",
            "#SBATCH --time=1-12:00:00\n",
            "#SBATCH --partition=gpu\n",
            "#SBATCH --account=bio\n",
            "folder='/my data/50 %j'\n",
            r"srun --kill-on-bad-exit=1 -- '/opt/my harvest' --set 'data.root=it'\''s $HOME'",
        ] {
            assert!(script.contains(wanted), "`{wanted}` is not in:\n{script}");
        }
        assert_eq!(plan.world_size(), 8);
        syntax(&script);
    }

    const EXPECTED_HERE: &str = r##"#!/bin/bash
cd /data/moths || exit 1
export RAYON_NUM_THREADS=4
folder=/data/moths/jobs/1
export HARVEST_PROGRESS=$folder/progress.json
restarts=0
stopped=
# Whoever stops the job tells the program as well, which saves and ends; it is not started again then.
trap 'stopped=yes' TERM INT HUP

while true; do
    # A start that fails for good says so there.
    export HARVEST_JOB_FAILED=$folder/failed-$restarts HARVEST_RESTART_COUNT=$restarts
    echo "on $HOSTNAME, restart $restarts, $(date -Is)"
    /opt/harvest train --config moths.toml
    code=$?
    if [ "$code" -ne 75 ] || [ -n "$stopped" ] || [ -s "$HARVEST_JOB_FAILED" ]; then
        break
    fi
    if [ "$restarts" -ge 100 ]; then
        echo "started again 100 times, which is enough"
        break
    fi
    restarts=$((restarts + 1))
    echo "ended with code $code, starts again"
done
echo "ended with code $code"
exit "$code"
"##;

    #[test]
    fn the_script_of_a_job_on_this_machine() {
        assert_eq!(plan().script_for(Place::Here).expect("it can be written"), EXPECTED_HERE);
    }

    #[test]
    fn modules_container_and_variables_come_before_the_command() {
        let mut plan = plan();
        plan.modules = vec!["openmpi/4.1".into(), "it's".into()];
        plan.container = ["apptainer", "exec", "--nv", "/my images/h.sif"].map(Into::into).to_vec();
        plan.environment = vec![("A".into(), "b c".into())];
        for place in [Place::Here, Place::Slurm] {
            let script = plan.script_for(place).expect("it can be written");
            let place =
                |words: &str| script.find(words).unwrap_or_else(|| panic!("`{words}` is not in:\n{script}"));
            let load = place(r"module load openmpi/4.1 'it'\''s' || exit 1");
            let export = place("export A='b c'\n");
            let run = place("apptainer exec --nv '/my images/h.sif' /opt/harvest train");
            assert!(load < export && export < run, "{script}");
            syntax(&script);
        }
    }

    /// Where it is installed.
    #[test]
    fn shellcheck_finds_nothing_in_scripts() {
        let check = |script: &str| {
            let mut check = Command::new("shellcheck");
            let mut check = check
                // What is quoted is meant as it stands.
                .args(["--shell=bash", "--exclude=SC2016", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .ok()?;
            check.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
            let output = check.wait_with_output().expect("it ends");
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let mut full = plan();
        full.modules = vec!["cuda/12.4".into()];
        full.container = vec!["apptainer".into(), "exec".into(), "/my images/h.sif".into()];
        full.environment = vec![("A".into(), "$HOME; rm".into())];
        full.folder = "/my data/it's".into();
        for plan in [plan(), full] {
            for place in [Place::Here, Place::Slurm] {
                let script = plan.script_for(place).expect("it can be written");
                match check(&script) {
                    Some(found) => assert_eq!(found, "", "{script}"),
                    None => eprintln!("shellcheck is not installed"),
                }
            }
        }
    }

    #[test]
    fn a_name_of_two_lines_is_refused() {
        let plan = JobPlan { name: "a\n#SBATCH --nodes=99".into(), ..plan() };
        let error = plan.script().expect_err("it would be another line").to_string();
        assert!(error.contains("name of the job"), "{error}");
    }

    fn syntax(script: &str) {
        let mut bash =
            Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().expect("there is a shell");
        bash.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
        assert!(bash.wait().expect("it ends").success());
    }

    /// How the script ends after an `srun` that ends with `code`: its own code, and whether it had itself requeued.
    fn ends(code: u8, restarts: u32, state: &str, failed: bool) -> (i32, bool) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("it is written");
            Command::new("chmod").arg("+x").arg(&path).status().expect("there is chmod");
        };
        let fail = if failed { "echo broken >\"$HARVEST_JOB_FAILED\"\n" } else { "" };
        write("srun", format!("{fail}exit {code}"));
        write("squeue", format!("echo {state}"));
        write("scontrol", format!("touch {}/requeued", folder.path().display()));
        let plan = JobPlan { folder: folder.path().to_owned(), ..plan() };
        let path = std::env::var("PATH").unwrap_or_default();
        let status = Command::new("bash")
            .arg("-c")
            .arg(plan.script().expect("it can be written"))
            .env("PATH", format!("{}:{path}", folder.path().display()))
            .envs([("SLURM_JOB_ID", "1"), ("SLURM_JOB_NODELIST", "n1")])
            .env("SLURM_RESTART_COUNT", restarts.to_string())
            .stdout(Stdio::null())
            .status()
            .expect("there is a shell");
        (status.code().expect("it ends by itself"), folder.path().join("requeued").exists())
    }

    #[test]
    fn only_what_may_help_is_started_again() {
        assert_eq!(ends(0, 0, "RUNNING", false), (0, false));
        for code in [75, 137, 143] {
            assert_eq!(ends(code, 3, "RUNNING", false), (0, true), "{code}");
            assert_eq!(ends(code, 100, "RUNNING", false), (i32::from(code), false), "{code}: too often");
            assert_eq!(ends(code, 0, "COMPLETING", false), (i32::from(code), false), "{code}: cancelled");
            assert_eq!(ends(code, 0, "RUNNING", true), (i32::from(code), false), "{code}: for good");
        }
        for code in [1, 2, 101, 130] {
            assert_eq!(ends(code, 0, "RUNNING", false), (i32::from(code), false), "{code}");
        }
    }
}
