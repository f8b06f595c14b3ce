"""Every task by name: a task is a label, a population, a moment and the fields known by then."""

from typing import Final

from models.tasks.network_tasks import APPROVED, ED_VISIT_90D, FIRST_PASS
from models.tasks.public_tasks import HEART_DISEASE, READMISSION_30D, REVIEW_OVERTURNED
from models.tasks.task import Task

TASKS: Final[dict[str, Task]] = {
    task.name: task
    for task in (
        APPROVED,
        FIRST_PASS,
        ED_VISIT_90D,
        READMISSION_30D,
        REVIEW_OVERTURNED,
        HEART_DISEASE,
    )
}
