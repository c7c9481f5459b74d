from screen import *
from picture_files import *
import time
def test_a(digits, tmp_path):
    for v in ("Average","Shape","Copies and leaks","Odd ones","nope"):
        t=time.time()
        app = open_page("explore", dataset="digits", view=v, split="test")
        print("=====",v, time.time()-t, app.query_params)
        print(words(app)); print([e.type for e in app.main][-30:])
        if v=="Average":
            print([(n, sheet(app,n)[1]["name"]) for n in ("mean images","variation of each class")])
            pick(app, 3, "mean images"); print(app.query_params, words(app)[-200:])
            print([ (b.key, b.value) for b in app.main.get("button_group")], [(s.key,s.value) for s in app.selectbox])
