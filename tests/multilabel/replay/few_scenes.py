"""Settings of runs that take a second."""

SMALL = [
    "data.num_train=28", "data.num_val=8", "data.num_test=8", "data.batch_size=8", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.threads=1", "augment=flip",
    "teacher.replay=require", "teacher.trainer.max_epochs=1", "teacher.batch_size=8",
]  # fmt: skip
