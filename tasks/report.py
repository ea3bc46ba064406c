"""stub"""
def write(folder, settings, kind, found, record, told):
    folder.mkdir(parents=True); (folder/"x.txt").write_text("x")
