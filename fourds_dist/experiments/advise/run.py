"""A question from its plan to its page, started or resumed.

FOLDER = run.dir/NAME, on a disk or in object storage
advise.yaml           the run that the question is about
spent.json            seconds that are spent, over all starts
lengths.json          lengths that were chosen by the speed of the first runs
runs/                 all runs
advice.json           the answer
advised.yaml          the recommended run, for `fourds train`
report.html, report/  the page, and its charts
"""

from __future__ import annotations

import torch
from rich.console import Console

from fourds_dist.experiments.advise.advice import Advice, advice_of, advised_yaml, chosen_candidate
from fourds_dist.experiments.advise.advisor import Advisor
from fourds_dist.experiments.advise.clock import BudgetClock
from fourds_dist.experiments.advise.page import page, show
from fourds_dist.experiments.advise.plan import ADVICE, ADVISED, SPENT, AdvisePlan, check_plan, claim
from fourds_dist.experiments.executor.open import check_imports
from fourds_dist.io.storage import write_bytes
from fourds_dist.io.terminal import words
from fourds_dist.launch.run import prepare
from fourds_dist.runs.layout import REPORT_FOLDER, RunFile
from fourds_dist.runs.lease import held
from fourds_dist.runs.run_folder import RunFolder, refuse_memory


def advise(plan: AdvisePlan, console: Console) -> Advice:
    """Answer a question, and write and print the answer; the same call goes on after a kill.

    Raises:
        ValueError: data, teacher or budget that give no answer; the error says what would.
    """
    refuse_memory(plan.url, is_one_process=plan.config.through == "here")
    check_imports(plan.config.through)
    with held(plan.url):
        prepare(plan.run)
        check_plan(plan)
        claim(plan)
        folder = RunFolder(plan.url)
        advisor = Advisor(plan, BudgetClock(folder, SPENT, plan.config.budget_s))
        advisor.run()
        advice = advice_of(advisor, _device())
        advised = advised_yaml(plan, advice, chosen_candidate(advisor, advice))
        folder.write_text(ADVISED, advised)
        folder.write_json(ADVICE, advice.as_dict())
        command = f"fourds train {folder.path(ADVISED)}"
        written = page(advice, plan.config.name, advised, command)
        for name, png in written.pngs().items():
            write_bytes(f"{plan.url}/{REPORT_FOLDER}/{name}", png)
        write_bytes(folder.path(RunFile.REPORT), written.html().encode())
        advisor.clock.write()
    show(advice, console)
    console.print(words(f"train it: {command}\nreport: {folder.path(RunFile.REPORT)}"), soft_wrap=True)
    return advice


def _device() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "this CPU"
